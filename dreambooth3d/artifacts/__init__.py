"""What lies between two stages: schema, write and read, one file per format.

| module     | on disk                                                                          |
|------------|----------------------------------------------------------------------------------|
| `jsonfile` | every ``*.json``: sorted keys, UTF-8, newline at the end                         |
| `key`      | content-addressed folders: ``<root>/<key>/``, published whole, ``<root>/LATEST`` |
| `manifest` | ``manifest.json`` in every published folder                                      |
| `image`    | pictures the user gave                                                           |
| `prompt`   | text in which [brackets] mark the subject                                        |
| `table`    | CSV files a user wrote                                                           |
| `subject`  | ``images/ references/ prompt.txt metadata.json`` and the CSV of many subjects    |
| `pairs`    | WebDataset tars with a byte index                                                |
| `chunks`   | a cache of rendered arrays with a note on every scene                            |
| `adapter`  | a folder of safetensors, a card and the reference views                          |
| `clip`     | ``clip.mp4`` and ``clip.mp4.json``                                               |
| `chart`    | line charts as SVG                                                               |
| `report`   | ``index.html`` and ``report.json``                                               |
"""
