"""A batch as a folder: the adapters side by side, and the table of all subjects."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from dreambooth3d.artifacts.jsonfile import json_bytes
from dreambooth3d.artifacts.key import (
    artifact_key,
    link_or_copy,
    point_latest,
    publish,
    publish_file,
)
from dreambooth3d.artifacts.manifest import MANIFEST_NAME, Manifest
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.keys import REVISION, STAGE, home_of, versioned
from dreambooth3d.personalize.orders import Order
from dreambooth3d.personalize.outcome import Outcome
from dreambooth3d.personalize.results import write_results


def batch_key(config: PersonalizeConfig, orders: Sequence[Order]) -> str:
    """Key of the batch of these subjects, ready or not."""
    parents = [*orders[0].parents, *(order.key for order in orders)]
    return artifact_key(f"{STAGE}-batch", REVISION, versioned(config), parents)


def publish_batch(
    config: PersonalizeConfig,
    orders: Sequence[Order],
    outcomes: Sequence[Outcome],
    out: Path,
    left_out: Sequence[Outcome] = (),
) -> Manifest:
    """Publish what is ready; a batch that is gone on with fills its folder up.

    One without any adapter is a table alone, and does not become the newest batch.

    Args:
        config, orders, outcomes: of the batch.
        out: folder of batches.
        left_out: rows that are in its tables alone.
    """
    done = [outcome for outcome in outcomes if not outcome.is_failed]
    key = batch_key(config, orders)
    final = out / key
    manifest = Manifest(
        stage=f"{STAGE}-batch",
        key=key,
        config=versioned(config),
        parents=(*orders[0].parents, *(o.key for o in done)),
        outputs={"adapters": {o.subject: o.sha256 for o in done}},
    )
    if final.is_dir():
        _fill(final, (*outcomes, *left_out), done, manifest, out)
    else:
        with publish(final) as aside:
            _fill(aside, (*outcomes, *left_out), done, manifest, out)
    if done:
        point_latest(out, key)
    return manifest


def _fill(
    folder: Path,
    outcomes: Sequence[Outcome],
    done: Sequence[Outcome],
    manifest: Manifest,
    out: Path,
) -> None:
    for outcome in done:
        target = folder / outcome.adapter
        if outcome.status == "trained":
            # It may show an adapter that was damaged and is made anew.
            shutil.rmtree(target, ignore_errors=True)
        if not target.is_dir():
            with publish(target) as aside:
                shutil.copytree(
                    home_of(out, outcome.key), aside, copy_function=_link, dirs_exist_ok=True
                )
    write_results(folder, outcomes)
    with publish_file(folder / MANIFEST_NAME) as aside:
        aside.write_bytes(json_bytes(manifest.to_json(), what="manifest"))


def _link(source: str, target: str) -> None:
    link_or_copy(Path(source), Path(target))
