/** Texts of kernels and tools, recorded, shortened and changed where a test needs a number of its own. */

export const MEMINFO = `MemTotal:       24684084 kB
MemFree:         5177032 kB
MemAvailable:   18150328 kB
Buffers:          109280 kB
Cached:          9048468 kB
SwapCached:            0 kB
Active:          5128828 kB
Inactive:        8039060 kB
Active(anon):    4128828 kB
Inactive(anon):    39060 kB
Active(file):    1000000 kB
Inactive(file):  8000000 kB
AnonPages:       4010140 kB
Mapped:          3000000 kB
Shmem:            400000 kB
HugePages_Total:       0
`;

export const MOUNTS_V2 = `22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
31 22 0:27 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate
`;

export const MOUNTS_V1_DOCKER = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
34 31 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory
`;

export const MOUNTS_HYBRID = `35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`;

export const STAT_V2 = `anon 7000
file 3000
shmem 100
file_mapped 600
inactive_anon 0
inactive_file 2000
active_file 900
`;

export const STAT_V1 = `cache 14
inactive_file 1
total_cache 50000
total_shmem 0
total_mapped_file 1000
total_inactive_file 40000
total_active_file 10000
`;

export const LIMITS = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max locked memory         8388608              8388608              bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
`;

export const VM_STAT = `Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               19455.
Pages active:                            425314.
Pages inactive:                          425521.
Pages speculative:                          946.
Pages throttled:                              0.
Pages wired down:                        118425.
Pages purgeable:                          23960.
"Translation faults":                3191714332.
Pages stored in compressor:             1189972.
`;

export const NVIDIA_TWO = `0, GPU-5f2e1c3a-0000-1111-2222-333344445555, NVIDIA GeForce RTX 4090, 24564, 23900
1, GPU-aa11bb22-0000-1111-2222-333344445555, NVIDIA A100-SXM4-40GB, 40960, 40338
`;

export const VULKAN = `==========
VULKANINFO
==========

Devices:
========
GPU0:
	apiVersion = 1.4.335
	deviceType = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU
	deviceName = Intel(R) UHD Graphics 770 (ADL-S GT1)

Device Properties and Extensions:
=================================
GPU0:
VkPhysicalDeviceProperties:
---------------------------
	apiVersion        = 1.4.335 (4211023)
	deviceType        = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU
	deviceName        = Intel(R) UHD Graphics 770 (ADL-S GT1)
VkPhysicalDeviceIDProperties:
	deviceUUID      = 86808046-0c00-0000-0002-000000000000
VkPhysicalDeviceMemoryProperties:
=================================
memoryHeaps: count = 1
	memoryHeaps[0]:
		size   = 33000000000 (0x7aef40a00) (30.73 GiB)
		budget = 29000000000 (0x6c088e200) (27.01 GiB)
		usage  = 0 (0x00000000) (0.00 B)
		flags: count = 1
			MEMORY_HEAP_DEVICE_LOCAL_BIT
memoryTypes: count = 1
	memoryTypes[0]:
		heapIndex     = 0
		propertyFlags = 0x0001: count = 1
			MEMORY_PROPERTY_DEVICE_LOCAL_BIT

GPU1:
VkPhysicalDeviceProperties:
---------------------------
	deviceType        = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU
	deviceName        = NVIDIA GeForce GTX 1650
VkPhysicalDeviceIDProperties:
	deviceUUID      = 11112222-0000-0000-0000-000000000000
VkPhysicalDeviceMemoryProperties:
=================================
memoryHeaps: count = 3
	memoryHeaps[0]:
		size   = 4120903680 (0xf5a00000) (3.84 GiB)
		budget = 3502768128 (0xd0c80000) (3.26 GiB)
		usage  = 0 (0x00000000) (0.00 B)
		flags: count = 1
			MEMORY_HEAP_DEVICE_LOCAL_BIT
	memoryHeaps[1]:
		size   = 17154371584 (0x3fe7af000) (15.98 GiB)
		budget = 16349065216 (0x3ce7af000) (15.23 GiB)
		usage  = 278528 (0x00044000) (272.00 KiB)
		flags:
			None
	memoryHeaps[2]:
		size   = 224395264 (0x0d600000) (214.00 MiB)
		budget = 203579392 (0x0c226000) (194.15 MiB)
		usage  = 20815872 (0x013da000) (19.85 MiB)
		flags: count = 1
			MEMORY_HEAP_DEVICE_LOCAL_BIT
memoryTypes: count = 6

GPU2:
VkPhysicalDeviceProperties:
---------------------------
	deviceType        = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU
	deviceName        = NVIDIA GeForce GTX 1650 (NVK TU117)
VkPhysicalDeviceIDProperties:
	deviceUUID      = 11112222-0000-0000-0000-000000000000
VkPhysicalDeviceMemoryProperties:
=================================
memoryHeaps: count = 1
	memoryHeaps[0]:
		size   = 4294967296 (0x100000000) (4.00 GiB)
		budget = 0 (0x00000000) (0.00 B)
		flags: count = 2
			MEMORY_HEAP_DEVICE_LOCAL_BIT
			MEMORY_HEAP_MULTI_INSTANCE_BIT

GPU3:
VkPhysicalDeviceProperties:
---------------------------
	deviceType        = PHYSICAL_DEVICE_TYPE_CPU
	deviceName        = llvmpipe (LLVM 19.1.7, 256 bits)
VkPhysicalDeviceMemoryProperties:
=================================
memoryHeaps: count = 1
	memoryHeaps[0]:
		size   = 2147483648 (0x80000000) (2.00 GiB)
		flags: count = 1
			MEMORY_HEAP_DEVICE_LOCAL_BIT
`;
