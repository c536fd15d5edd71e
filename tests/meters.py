"""Stand-ins for what counts energy, and what NVIDIA's profiler writes."""


class Clock:
    """Time that only passes when somebody works or sleeps, and a counter of energy that moves in steps of time."""

    def __init__(self, tick: float = 0.02, watts: float = 100.0, own: float = 300.0) -> None:
        self.now, self.work = 0.0, 0.0
        self.tick, self.watts, self.own = tick, watts, own

    def pass_by(self, seconds: float, working: bool = False) -> None:
        self.now += seconds
        self.work += seconds * working

    def joules(self) -> float:
        moved = self.now // self.tick * self.tick
        return self.watts * moved + self.own * self.work * (moved / self.now if self.now else 0)


LOG = """==PROF== Connected to process 77 (/opt/python3)
==PROF== Profiling "Sin": 0%....50%....100% - 1 pass
"ID","Process ID","Kernel Name","Block Size","Metric Name","Metric Unit","Metric Value"
"0","77","void mlx::core::cu::unary_v<mlx::core::cu::Sin, float, float, unsigned int, 4>(T2)","(32, 1, 1)",\
"dram__bytes_read.sum","byte","128"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","dram__bytes_read.sum","byte","268,446,976"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","dram__bytes_write.sum","byte","199,881,472"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","gpu__time_duration.sum","ns","125,344"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","launch__registers_per_thread","register/thread","56"
"1","77","custom_kernel_adamw_1(const float *, T)","(256, 1, 1)","sm__some_other_metric","x","1"
"2","77","void copy_v(const T1 *)","(32, 1, 1)","dram__bytes_read.sum","byte","1,024"
"2","77","void copy_v(const T1 *)","(32, 1, 1)","dram__bytes_write.sum","byte","0"
"2","77","void copy_v(const T1 *)","(32, 1, 1)","gpu__time_duration.sum","ns","4,000"
"""
