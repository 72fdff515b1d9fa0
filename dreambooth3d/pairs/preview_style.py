"""How the preview of a corpus looks, and what it says about each reason."""

REASONS: dict[str, str] = {
    "unreadable_picture": "The file could not be decoded",
    "too_many_pixels": "The picture is larger than allowed",
    "unsupported_picture": "The file is of a kind that is not read",
    "bad_row": "The row of a table could not be used",
    "bad_caption": "There are no words and no class to make some of",
    "bad_mesh": "The mesh could not be loaded or rendered",
    "bad_member": "A member of an archive could not be used",
    "missing_member": "A member of the sample is not there",
    "too_small": "The picture has too few pixels",
    "bad_aspect": "The picture is too long or too tall",
    "no_object": "No object was found",
    "uncertain_cut": "It is not certain which pixels are the object",
    "object_too_small": "The object fills too little of the picture",
    "object_too_large": "The object fills nearly all of the picture",
    "object_cut": "The object leaves the picture",
    "object_in_pieces": "The object's mask is torn or full of holes",
    "blurred": "The object is not sharp",
    "too_dark": "The object is nearly black",
    "too_bright": "The object is nearly white",
    "flat_colours": "The object has hardly any colours",
    "failed_source_quality": "The source itself rates it low",
    "not_same_object": "Reference and target do not show the same object",
    "same_picture": "The target is a copy of the reference and teaches nothing",
    "near_duplicate": "It looks like a pair that is kept before it",
    "blocklisted": "The subject must not be in this corpus",
    "unsafe": "The safety filter refused it",
}

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --text: #1d1d1f; --soft: #63636a;
        --line: #dededa; --chip: #eeeeea; --link: #0b5cad; --bad: #c2410c; --gate: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --page: #161618; --card: #212124; --text: #ececee; --soft: #a2a2aa; --line: #38383d;
          --chip: #313137; --link: #7ab7ff; --bad: #f0803c; --gate: #56a8e0 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text);
       font: 15px/1.45 system-ui, "Segoe UI", Roboto, sans-serif }
main { max-width: 82rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.25rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .4rem; overflow-wrap: anywhere }
h2 small { color: var(--soft); font-weight: 400; margin-left: .25rem }
a { color: var(--link); text-decoration: none } a:hover { text-decoration: underline }
.note { color: var(--soft); margin: 0 0 .9rem }
.wide + .note { font-size: .85rem; margin-top: .4rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
         list-style: none; margin: 0; padding: 0 }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
            padding: .8rem 1rem; overflow-wrap: anywhere }
.tiles strong { font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums }
.tiles small { display: block; color: var(--soft); font-size: .85rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line);
        border-radius: .6rem; width: 100% }
th, td { padding: .45rem .8rem; text-align: left; border-bottom: 1px solid var(--line) }
tr:last-child td { border-bottom: 0 }
th { color: var(--soft); font-weight: 600; font-size: .85rem }
td small { color: var(--soft); margin-left: .35rem }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { width: 22%; min-width: 7rem }
.bar div { height: .6rem; min-width: 2px; border-radius: .3rem }
.bar .bad { background: var(--bad) } .bar .gate { background: var(--gate) }
.sheet { display: grid; gap: .75rem }
.pairs { grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)) }
.drops { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)) }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
         overflow: hidden }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff }
.drops img { background: var(--chip) }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1px; background: var(--line) }
.none { display: grid; place-items: center; aspect-ratio: 1; background: var(--chip);
        color: var(--soft) }
figcaption { padding: .6rem .75rem .7rem; font-size: .88rem; overflow-wrap: anywhere }
figcaption p { margin: 0 0 .4rem; unicode-bidi: isolate }
.words { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 7;
         overflow: hidden }
.chips { color: var(--soft); font-size: .8rem; margin: 0 }
.chips b, .chips span { display: inline-block; background: var(--chip); border-radius: .3rem;
                        padding: .05rem .4rem; margin: 0 .15rem .2rem 0; font-weight: 500 }
.chips code { font-size: .95em }
.credit { color: var(--soft); font-size: .78rem; margin: .3rem 0 0 }
details summary { cursor: pointer; color: var(--soft) }
@media print { section { break-inside: avoid } }
"""
