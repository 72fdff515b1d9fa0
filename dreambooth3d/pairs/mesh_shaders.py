"""The programs that run on the graphics device, OpenGL 4.0."""

# Surfaces: both sides are lit, since many models have faces that look inwards. Light is linear and
# colour is premultiplied by alpha, so that averaging samples leaves no dark fringe.
SURFACE_VERTEX = """
#version 400
uniform mat4 view_projection;
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_color;
out vec3 position;
out vec3 normal;
out vec2 uv;
out vec4 color;
void main() {
    position = in_position;
    normal = in_normal;
    uv = in_uv;
    color = in_color;
    gl_Position = view_projection * vec4(in_position, 1.0);
}
"""

SURFACE_FRAGMENT = """
#version 400
const int OPAQUE = 0, MASK = 1, BLEND = 2;
uniform sampler2D image;
uniform vec4 tint;
uniform int alpha_mode;
uniform float gloss;
uniform float shininess;
uniform vec3 eye;
uniform vec3 sky_light;
uniform vec3 floor_light;
uniform vec3 key_light;
uniform vec3 key_direction;
in vec3 position;
in vec3 normal;
in vec2 uv;
in vec4 color;
out vec4 light;
void main() {
    vec4 texel = texture(image, uv, -0.5);
    vec4 base = vec4(texel.rgb / max(texel.a, 1e-3), texel.a) * tint * color;
    float alpha = alpha_mode == OPAQUE ? 1.0 : base.a;
    if (alpha_mode == MASK) {
        // A ramp one pixel wide at the half, in four steps: crisp leaves that hide what is behind.
        float share = clamp((alpha - 0.5) / max(fwidth(alpha), 1e-3) + 0.5, 0.0, 1.0);
        gl_SampleMask[0] = int[5](0, 1, 9, 13, 15)[int(share * 4.0 + 0.5)];
        alpha = 1.0;
    } else {
        gl_SampleMask[0] = 15;
    }
    if (alpha < 0.02) {
        discard;
    }
    vec3 to_eye = normalize(eye - position);
    vec3 n = normalize(normal);
    n = dot(n, to_eye) < 0.0 ? -n : n;
    vec3 ambient = mix(floor_light, sky_light, 0.5 + 0.5 * n.y);
    float facing = max(dot(n, key_direction), 0.0);
    float highlight = pow(max(dot(n, normalize(to_eye + key_direction)), 0.0), shininess);
    float rim = pow(1.0 - max(dot(n, to_eye), 0.0), 4.0);
    vec3 mirrored = mix(floor_light, sky_light, 0.5 + 0.5 * reflect(-to_eye, n).y);
    vec3 shine = gloss * (0.6 * highlight * facing * key_light + (0.03 + 0.4 * rim) * mirrored);
    light = vec4((base.rgb * (ambient + key_light * facing) + shine) * alpha, alpha);
}
"""

# Shadows: every point falls along the light onto the floor, and shades it less the higher it was.
SHADOW_VERTEX = """
#version 400
uniform mat4 view_projection;
uniform float floor_height;
uniform vec3 light_direction;
in vec3 in_position;
in vec2 in_uv;
out float height;
out vec2 uv;
void main() {
    height = in_position.y - floor_height;
    uv = in_uv;
    vec3 fallen = in_position - light_direction * (height / light_direction.y);
    gl_Position = view_projection * vec4(fallen, 1.0);
}
"""

SHADOW_FRAGMENT = """
#version 400
uniform sampler2D image;
uniform bool has_holes;
uniform float reach;
uniform vec4 channel;
uniform float opacity;
in float height;
in vec2 uv;
out vec4 shade;
void main() {
    float alpha = texture(image, uv).a;
    if (has_holes && alpha < 0.5) {
        discard;
    }
    shade = channel * opacity * exp(-max(height, 0.0) / reach);
}
"""
