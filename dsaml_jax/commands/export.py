"""--mode=export: a trained model as a folder to publish."""

from __future__ import annotations

from pathlib import Path

from dsaml_jax.commands.options import ListenerOptions
from dsaml_jax.commands.workdir import versions
from dsaml_jax.personal.export import check_new, write_export
from dsaml_jax.personal.saved import open_shared


def export(options: ListenerOptions) -> str:
    """Writes a shared model without optimizer states, data, or pickles; see `personal.export`.

    Raises:
      UserError: there is no finished model, or the folder is not empty; nothing is written then.
    """
    options.need("export", "checkpoint", "workdir")
    folder = Path(options.workdir)
    check_new(folder)
    shared = open_shared(Path(options.checkpoint), options.experiment, options.embedding_weights)
    write_export(shared, folder, versions())
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    adapts = "adapts to listeners" if shared.meta is not None else "predicts for everybody alike"
    return (
        f"The model is in {folder}/ ({size:.1f} MiB, hash {shared.hash[:12]}): it {adapts}; use it "
        f"with --checkpoint={folder}."
    )
