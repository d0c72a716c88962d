"""Feature extraction on Apache Beam, for data sets that are too large for one machine.

Workers must see the data set's folder and the folder of prepared data under the same paths, and
have this package installed. Requires `pip install -r requirements-beam.txt`.
"""

from __future__ import annotations

from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from dsaml_jax.errors import UserError
from dsaml_jax.preparation.extract import extract
from dsaml_jax.preparation.job import Job


def extract_on_beam(jobs: Sequence[Job], options: Sequence[str]) -> None:
    """Runs `extract` on each job as a pipeline, and waits for it to finish.

    Results are written to the feature store. The caller must run the jobs whose entries are missing
    afterwards, because their audio is invalid or ImageBind's tower is still to be run.

    Args:
      jobs: Elements of the pipeline.
      options: Pipeline options, e.g. ("--runner=FlinkRunner", "--flink_master=host:8081").

    Raises:
      UserError: Apache Beam is not installed.
    """
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports] - optional
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise UserError(
            "data.beam_options needs Apache Beam: pip install -r requirements-beam.txt."
        ) from error
    # The local runner's workers run in this process, so its number of threads is restored later.
    pipeline_options = PipelineOptions(list(options))
    with threadpool_limits(1), beam.Pipeline(options=pipeline_options) as pipeline:
        songs = pipeline | "Songs" >> beam.Create(jobs)
        _ = songs | "Spread" >> beam.Reshuffle() | "Features" >> beam.Map(_extract)


def _extract(job: Job) -> None:
    threadpool_limits(1)  # for remote workers: the number of threads changes the last bits
    extract(job)  # invalid audio is reported by the caller, which runs the job again
