// A CUDA runtime for machines without a GPU, to be preloaded: streams are threads, copies are made after a random delay,
// and there are no kernels. What torch asks of the runtime in order to run `Gpu` is here, and no more.
//
// PRETEND_DELAY_US      longest delay of a copy, in µs
// PRETEND_SOUND_COPIES  copies before each further one fails with PRETEND_ERROR, a cudaError_t, as in a lost context
// PRETEND_HOST_ALLOCS   pinned allocations before each further one finds no memory
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>

namespace {

long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

// Work in the order in which it was put, by a thread that never ends.
struct Stream {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    long done = 0, put = 0;

    Stream() { std::thread([this] { work(); }).detach(); }

    void work() {
        for (;;) {
            std::function<void()> next;
            {
                std::unique_lock lock(mutex);
                changed.wait(lock, [&] { return !queue.empty(); });
                next = std::move(queue.front());
                queue.pop_front();
            }
            next();
            {
                std::lock_guard lock(mutex);
                done++;
            }
            changed.notify_all();
        }
    }

    void add(std::function<void()> work) {
        {
            std::lock_guard lock(mutex);
            queue.push_back(std::move(work));
            put++;
        }
        changed.notify_all();
    }

    bool idle() {
        std::lock_guard lock(mutex);
        return done == put;
    }

    void synchronize() {
        std::unique_lock lock(mutex);
        long until = put;
        changed.wait(lock, [&] { return done >= until; });
    }
};

struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    long wanted = 0, reached = 0;
};

Stream* default_stream() {
    static Stream* stream = new Stream;
    return stream;
}

Stream* stream_of(cudaStream_t stream) {
    return (size_t)stream <= 2 ? default_stream() : (Stream*)stream;  // 1 and 2 are names of the default stream
}

// What has been allocated: its size, and where it lies.
std::mutex memory_mutex;
std::map<char*, std::pair<size_t, cudaMemoryType>> memory;

void* allocate(size_t size, cudaMemoryType type) {
    void* place = aligned_alloc(4096, (size + 4095) / 4096 * 4096 + 4096);
    std::lock_guard lock(memory_mutex);
    memory[(char*)place] = {size, type};
    return place;
}

void release(void* place) {
    std::lock_guard lock(memory_mutex);
    memory.erase((char*)place);
    free(place);
}

cudaMemoryType type_of(const void* place) {
    std::lock_guard lock(memory_mutex);
    auto next = memory.upper_bound((char*)place);
    if (next == memory.begin()) return cudaMemoryTypeUnregistered;
    --next;
    return (char*)place < next->first + next->second.first ? next->second.second : cudaMemoryTypeUnregistered;
}

void copy(void* to, const void* from, size_t size) {
    static long longest = setting("PRETEND_DELAY_US", 0);
    thread_local std::mt19937 random(std::random_device{}());
    if (longest) std::this_thread::sleep_for(std::chrono::microseconds(random() % longest));
    memcpy(to, from, size);
}

std::atomic<long> copies{0}, host_allocations{0};
std::atomic<int> lost{0};  // the error that every call gives from then on

cudaError_t record(cudaEvent_t handle, cudaStream_t stream) {
    auto* event = (Event*)handle;
    long number;
    {
        std::lock_guard lock(event->mutex);
        number = ++event->wanted;
    }
    stream_of(stream)->add([=] {
        {
            std::lock_guard lock(event->mutex);
            event->reached = number;
        }
        event->changed.notify_all();
    });
    return cudaSuccess;
}

cudaError_t new_stream(cudaStream_t* stream) {
    *stream = (cudaStream_t) new Stream;
    return cudaSuccess;
}

cudaError_t allocate_host(void** place, size_t size) {
    static long most = setting("PRETEND_HOST_ALLOCS", 1L << 40);
    if (++host_allocations > most) return cudaErrorMemoryAllocation;
    *place = allocate(size, cudaMemoryTypeHost);
    return cudaSuccess;
}

int nothing() { return 0; }

}  // namespace

extern "C" {

// The device.
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13020, cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* most) { return *least = 0, *most = -5, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return default_stream()->synchronize(), cudaSuccess; }
cudaError_t cudaGetLastError() { return (cudaError_t)lost.load(); }
cudaError_t cudaPeekAtLastError() { return (cudaError_t)lost.load(); }
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { return *flags = 0, *active = 1, 0; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
    memset(found, 0, sizeof *found);
    strcpy(found->name, "pretend H100");
    found->major = 9;
    found->totalGlobalMem = 80ull << 30;
    found->multiProcessorCount = 132;
    found->warpSize = 32;
    found->maxThreadsPerBlock = 1024;
    found->maxThreadsPerMultiProcessor = 2048;
    found->regsPerBlock = found->regsPerMultiprocessor = 65536;
    found->sharedMemPerBlock = 49152;
    found->sharedMemPerMultiprocessor = 233472;
    found->sharedMemPerBlockOptin = 232448;
    found->l2CacheSize = 50 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor    ? 9
             : attribute == cudaDevAttrMultiProcessorCount     ? 132
             : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 232448
                                                               : 0;
    return cudaSuccess;
}

// Memory.
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    return *available = 70ull << 30, *total = 80ull << 30, cudaSuccess;
}
cudaError_t cudaMalloc(void** place, size_t size) {
    return *place = allocate(size, cudaMemoryTypeDevice), cudaSuccess;
}
cudaError_t cudaFree(void* place) { return release(place), cudaSuccess; }
cudaError_t cudaHostAlloc(void** place, size_t size, unsigned) { return allocate_host(place, size); }
cudaError_t cudaMallocHost(void** place, size_t size) { return allocate_host(place, size); }
cudaError_t cudaFreeHost(void* place) { return release(place), cudaSuccess; }

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* place) {
    memset(found, 0, sizeof *found);
    found->type = type_of(place);
    found->devicePointer = found->hostPointer = (void*)place;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
    static long sound = setting("PRETEND_SOUND_COPIES", 1L << 40);
    if (++copies > sound) lost = (int)setting("PRETEND_ERROR", cudaErrorIllegalAddress);
    if (lost) return (cudaError_t)lost.load();
    if (type_of(from) == cudaMemoryTypeUnregistered) {  // pageable memory is read before the call returns
        auto* staged = (char*)malloc(size);
        memcpy(staged, from, size);
        stream_of(stream)->add([=] {
            copy(to, staged, size);
            free(staged);
        });
    } else {
        stream_of(stream)->add([=] { copy(to, from, size); });
    }
    if (type_of(to) == cudaMemoryTypeUnregistered) stream_of(stream)->synchronize();
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
    default_stream()->synchronize();
    return memcpy(to, from, size), cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    return stream_of(stream)->add([=] { memset(to, value, size); }), cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t size) { return memset(to, value, size), cudaSuccess; }

// Streams.
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return new_stream(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return new_stream(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return new_stream(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { return *priority = 0, cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return stream_of(stream)->idle() ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream_of(stream)->synchronize(), cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t*,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
    if (id) *id = 0;
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }

// Events. A stream waits for the last record that was asked for before it was told to.
cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = (cudaEvent_t) new Event, cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return record(event, stream); }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) { return record(event, stream); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    return *milliseconds = 1, cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
    auto* event = (Event*)handle;
    std::lock_guard lock(event->mutex);
    return event->reached >= event->wanted ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    auto* event = (Event*)handle;
    std::unique_lock lock(event->mutex);
    long until = event->wanted;
    event->changed.wait(lock, [&] { return event->reached >= until; });
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned) {
    auto* event = (Event*)handle;
    long until;
    {
        std::lock_guard lock(event->mutex);
        until = event->wanted;
    }
    stream_of(stream)->add([=] {
        std::unique_lock lock(event->mutex);
        event->changed.wait(lock, [&] { return event->reached >= until; });
    });
    return cudaSuccess;
}

// The driver, which torch asks for some functions by name.
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** found, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW);
    *found = driver ? dlsym(driver, name) : nullptr;
    if (!*found) *found = (void*)nothing;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
}
