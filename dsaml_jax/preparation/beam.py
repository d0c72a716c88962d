"""The same work on Apache Beam, for data sets that are too large for one machine.

Workers must see the data set's folder and that of prepared data by the same paths, and have this
package installed. `pip install -r requirements-beam.txt`.
"""

from __future__ import annotations

from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from dsaml_jax.errors import UserError
from dsaml_jax.preparation.extract import Job, extract


def extract_on_beam(jobs: Sequence[Job], options: Sequence[str]) -> None:
    """Runs `extract` of each job as a pipeline, and waits for its end.

    What comes of it lies in the feature store. Jobs whose entries are not there afterwards, because
    their audio is at fault or ImageBind's tower is still to be run, are for the caller to run.

    Args:
      jobs: each is one element.
      options: of the pipeline, e.g. ("--runner=FlinkRunner", "--flink_master=host:8081").

    Raises:
      UserError: Apache Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            "data.beam_options needs Apache Beam: pip install -r requirements-beam.txt."
        ) from error
    # The local runner's workers are in this process, which gets its threads back at the end.
    options = PipelineOptions(list(options))
    with threadpool_limits(1), beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | "Songs" >> beam.Create(jobs)
            | "Spread" >> beam.Reshuffle()
            | "Features" >> beam.Map(_extract)
        )


def _extract(job: Job) -> None:
    threadpool_limits(1)  # on workers elsewhere: the number of threads changes the last bits
    extract(job)  # a fault of the audio is told by the caller, who meets it again
