"""The endpoint: `/v1/videos` over a durable job table, several subjects in one batch.

| module     | holds                                                                       |
|------------|-----------------------------------------------------------------------------|
| `settings` | what the operator chooses, with ``DREAMBOOTH3D_*`` overrides                |
| `schema`   | what a client sends, field by field                                         |
| `orders`   | a request as a whole: shape, prompt, subject; complete, as the table holds it |
| `replies`  | what is sent back                                                           |
| `errors`   | the one form of every refusal                                               |
| `jobs`     | the job table: every accepted job ends once, as completed, failed, canceled |
| `records`  | what a job is                                                               |
| `rows`     | rows of the table and the jobs they are                                     |
| `database` | connections and transactions                                                |
| `keys`     | API keys and the command that makes and revokes them                        |
| `access`   | who asks, how often, and what is refused                                    |
| `tables`   | the database schema, and SQLite's settings                                  |
| `results`  | clips and thumbnails on disk                                                |
| `sweep`    | lost leases, expired clips, folders that no job owns                        |
| `subjects` | which adapters can be served, found again whenever the folder changes       |
| `registry` | subjects of MLflow's registry, fetched as their alias moves                 |
| `adapters` | loaded adapters: least recently used go first, never while in use           |
| `batch`    | rows of a batch and the time of their stages                                |
| `meters`   | what Prometheus can read                                                    |
| `logs`     | one JSON object a line, with its job                                        |
| `autoscaling` | how many engines there should be                                         |
| `engine`   | claims batches, denoises, writes clips                                      |
| `body`     | JSON and multipart bodies to one dict                                       |
| `openapi`  | how the interface describes itself                                          |
| `events`   | progress as server-sent events                                              |
| `services` | what routes work on                                                         |
| `video_routes`, `subject_routes`, `routes` | the HTTP interface                          |
| `refusals` | every failure as an answer of the one form                                  |
| `site`     | the page                                                                    |
| `uploads`  | photos from a client: bounded, decoded, written anew                        |
| `trainings` | subjects in the making                                                     |
| `trainer`  | runs the personalize stage for them, in a Ray task                          |
| `app`      | the Ray Serve application                                                   |

`app`, `autoscaling`, `meters` and `trainer` import ray.
"""
