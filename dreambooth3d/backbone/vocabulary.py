"""English words that the tokenizer knows besides those of the scenes."""

_TEXT = """
a about above across after again all along also an and angle animal another any are around as at
away baby back bag ball basket beach bear bed bee before behind below beside best between big bird
black blue boat book bottle bowl box boy bread bridge bright broken brown bus but by cake camera
can candle car card cartoon castle cat chair child city clean clear clock close cloud coat coffee
cold color colour colored corner cup curtain cut dance dark day desert desk dinosaur dish dog doll
door down dragon dress drive duck each early earth empty evening every eye face fall far farm fast
field figure film fire fish flat floor flower fly food foot for forest fox frame fresh from front
fruit full garden girl glass gold golden good gray grass green grey ground hair hand hanging happy
hat head heart heavy high hill holding home horse hot house ice image in indoors inside into is it
item its jar jumping kitchen knife lake lamp large laying leaf left leg light like lion little
living long looking low lying made man many market mat meadow metal middle model monster moon
morning motion mountain mouse moves moving mug museum name near new next night no nose object
ocean of off office old on one open or orange other out outdoors over painted paper park part
person photo photograph picture pink plain plant plastic plate playing pool pot purple rabbit rain
red resting right river road robot rock roof room rotates rotating round running sand scene sea
seat seen shape shelf shiny ship shoe shop short shot show side silver sits sitting sky sleeping
slow slowly small snow soap sofa soft spinning spots spring square stage stand standing star stars
statue stone street stripes striped studio summer sun sunny sunset surface sweet table tall tea
teapot television that the there thing three tiny to toy track train tree turning turns turntable
two under up vase video view walking wall warm water wave wearing wheel while white wide wild
window winter with woman wood wooden wool yard yellow young zoom sks subject
"""

WORDS: tuple[str, ...] = tuple(_TEXT.split())
"""A few hundred common words; any other string is still encoded, byte by byte if need be."""
