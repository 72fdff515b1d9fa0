"""Metrics of the machine that a training runs on, under the names that MLflow's pages know."""

from contextlib import suppress

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor


class SystemMetrics:
    """Samples of processor, memory and, where there are any, GPUs; kept until they are recorded.

    The samplers are MLflow's own. They do not need its server, which may be away meanwhile.
    """

    def __init__(self) -> None:
        self._monitors = [CPUMonitor()]
        # Without an NVIDIA library or a GPU, the processor is all there is.
        with suppress(ImportError, RuntimeError):
            self._monitors.append(GPUMonitor())
        self.points: dict[str, dict[int, float]] = {}

    def sample(self, step: int) -> None:
        """Take values now, under this step."""
        for monitor in self._monitors:
            monitor.collect_metrics()
            for name, value in monitor.aggregate_metrics().items():
                self.points.setdefault(f"system/{name}", {})[step] = float(value)
            monitor.clear_metrics()
