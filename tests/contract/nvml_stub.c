/* A libnvidia-ml.so.1 for tests: two H100 GPUs, the second one cut by MIG.
 *
 * Answers with the structures of nvml.h, so that the binding is exercised through real ctypes
 * calls. stub_fail() makes one call answer with an error code until stub_reset().
 */

#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define ARGUMENT_VERSION_MISMATCH 25

#define GPUS 2
#define MIG_GPU 1
#define MAX_MIG 7

typedef struct { unsigned gpu, gi, ci; int is_mig; } device_t;
typedef struct { unsigned gpu, gi; } gi_t;
typedef struct { unsigned gpu, gi, ci; } ci_t;

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info_t;

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version, value; } addressing_mode_t;
typedef struct { unsigned start, size; } placement_t;

typedef struct {
    unsigned id, is_p2p_supported, slice_count, instance_count, multiprocessor_count,
        copy_engine_count, decoder_count, encoder_count, jpeg_count, ofa_count;
    unsigned long long memory_size_mb;
} gi_profile_t;

typedef struct { device_t *device; unsigned id, profile_id; placement_t placement; } gi_info_t;

typedef struct {
    unsigned id, slice_count, instance_count, multiprocessor_count, copy_engines, decoders,
        encoders, jpegs, ofas;
} ci_profile_t;

typedef struct {
    device_t *device;
    gi_t *gpu_instance;
    unsigned id, profile_id;
    placement_t placement;
} ci_info_t;

/* GPU instance profiles by index: 1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb, ..., 1g.20gb. */
static const struct { unsigned index; gi_profile_t info; } profiles[] = {
    {0, {19, 0, 1, 7, 16, 1, 1, 0, 1, 0, 9856}},
    {1, {14, 0, 2, 3, 32, 2, 2, 0, 2, 0, 19968}},
    {2, {9, 0, 3, 2, 60, 3, 3, 0, 3, 0, 40320}},
    {3, {5, 0, 4, 1, 64, 4, 4, 0, 4, 0, 40320}},
    {4, {0, 0, 7, 1, 132, 8, 7, 0, 7, 1, 80384}},
    {7, {20, 0, 1, 1, 16, 1, 1, 0, 1, 1, 9856}},
    {9, {15, 0, 1, 4, 26, 1, 1, 0, 1, 0, 19968}},
};

static const struct { unsigned slices; } ci_profiles[] = {{1}, {2}, {3}, {4}, {7}, {0}, {0}, {1}};

/* What the second GPU is cut into; index 1 is a gap. A compute instance may cover only a part. */
static const struct {
    int alive;
    unsigned gi, profile_id, start, size, ci_profile;
} cuts[MAX_MIG] = {
    {1, 7, 19, 0, 1, 0},
    {0, 0, 0, 0, 0, 0},
    {1, 2, 9, 4, 4, 2},
    {1, 9, 15, 2, 2, 7},
};

typedef struct {
    unsigned version;
    unsigned char cluster_uuid[16];
    unsigned status, clique_id;
    unsigned char state;
    unsigned health_mask;
} fabric_t;

static device_t gpus[GPUS] = {{0, 0, 0, 0}, {1, 0, 0, 0}};
static device_t migs[MAX_MIG];
static gi_t gis[MAX_MIG];
static ci_t cis[MAX_MIG];

static unsigned compute_modes[GPUS];
static unsigned initialised, last_flags = 4711;
static char failing[96];
static char held[96];
static volatile int inside;
static int failing_code, failing_after;
static char product[96] = "NVIDIA H100 80GB HBM3";

#ifndef DRIVER_VERSION
#define DRIVER_VERSION "570.158.01"
#endif

void stub_reset(void) {
    failing[0] = held[0] = '\0';
    memset(compute_modes, 0, sizeof compute_modes);
    strcpy(product, "NVIDIA H100 80GB HBM3");
}

/* The first `after` calls still succeed. */
void stub_fail(const char *call, int code, int after) {
    strncpy(failing, call, sizeof failing - 1);
    failing_code = code;
    failing_after = after;
}

/* This call does not return before stub_reset(). */
void stub_hold(const char *call) { strncpy(held, call, sizeof held - 1); }
int stub_inside(void) { return inside; }

void stub_product(const char *name) { strncpy(product, name, sizeof product - 1); }
unsigned stub_initialised(void) { return initialised; }
unsigned stub_flags(void) { return last_flags; }

static int trouble(const char *call) {
    while (!strcmp(call, *(volatile char *)held ? held : "")) {
        inside = 1;
        usleep(1000);
    }
    inside = 0;
    if (!initialised && strcmp(call, "nvmlInitWithFlags"))
        return UNINITIALIZED;
    if (strcmp(call, failing) || failing_after-- > 0)
        return SUCCESS;
    return failing_code;
}

#define ENTER() do { int code = trouble(__func__); if (code) return code; } while (0)

static int text(char *out, unsigned size, const char *value) {
    if (strlen(value) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case 15: return "GPU is lost";
    case 777: return "Stub is in a bad mood";
    default: return "Some error";
    }
}

int nvmlInitWithFlags(unsigned flags) {
    ENTER();
    initialised++;
    last_flags = flags;
    return SUCCESS;
}

int nvmlShutdown(void) {
    ENTER();
    initialised--;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    ENTER();
    return text(out, size, DRIVER_VERSION);
}

int nvmlSystemGetCudaDriverVersion(int *out) {
    ENTER();
    *out = 12080;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    ENTER();
    *out = GPUS;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **out) {
    ENTER();
    if (index >= GPUS)
        return INVALID_ARGUMENT;
    *out = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t **out) {
    unsigned last = strlen(uuid) - 1;
    ENTER();
    if (strncmp(uuid, "GPU-11111111-2222-3333-4444-00000000000", last))
        return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2(uuid[last] - '0', out);
}

int nvmlDeviceGetUUID(device_t *device, char *out, unsigned size) {
    char value[] = "GPU-11111111-2222-3333-4444-00000000000x";
    char mig[] = "MIG-11111111-2222-3333-4444-00000000000x";
    char *chosen = device->is_mig ? mig : value;
    ENTER();
    chosen[strlen(chosen) - 1] = '0' + (device->is_mig ? device->gi : device->gpu);
    return text(out, size, chosen);
}

int nvmlDeviceGetMinorNumber(device_t *device, unsigned *out) {
    ENTER();
    *out = device->gpu;
    return SUCCESS;
}

int nvmlDeviceGetName(device_t *device, char *out, unsigned size) {
    (void)device;
    ENTER();
    return text(out, size, product);
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *out) {
    (void)device;
    ENTER();
    out->total = 81559ULL * 1024 * 1024;
    out->free = out->used = 0;
    return SUCCESS;
}

int nvmlDeviceGetArchitecture(device_t *device, unsigned *out) {
    (void)device;
    ENTER();
    *out = 9;
    return SUCCESS;
}

int nvmlDeviceGetBrand(device_t *device, unsigned *out) {
    (void)device;
    ENTER();
    *out = 14;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device_t *device, int *major, int *minor) {
    (void)device;
    ENTER();
    *major = 9;
    *minor = 0;
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(device_t *device, pci_info_t *out) {
    ENTER();
    memset(out, 0, sizeof *out);
    strcpy(out->bus_id_legacy, "0000:00:00.0");
    strcpy(out->bus_id, device->gpu ? "00000000:C1:00.0" : "00000000:1B:00.0");
    return SUCCESS;
}

int nvmlDeviceGetGpuFabricInfoV(device_t *device, fabric_t *out) {
    ENTER();
    memset(out->cluster_uuid, 0xab, sizeof out->cluster_uuid);
    out->status = 0;
    out->clique_id = 7 + device->gpu;
    out->state = 3;
    return SUCCESS;
}

int nvmlDeviceGetAddressingMode(device_t *device, addressing_mode_t *out) {
    (void)device;
    ENTER();
    if (out->version != 0x1000008)
        return ARGUMENT_VERSION_MISMATCH;
    out->value = 1;
    return SUCCESS;
}

int nvmlDeviceGetComputeMode(device_t *device, unsigned *out) {
    ENTER();
    *out = compute_modes[device->gpu];
    return SUCCESS;
}

int nvmlDeviceSetComputeMode(device_t *device, unsigned mode) {
    ENTER();
    if (mode > 3)
        return INVALID_ARGUMENT;
    compute_modes[device->gpu] = mode;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device_t *device, unsigned *current, unsigned *pending) {
    ENTER();
    *current = *pending = device->gpu == MIG_GPU;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned *out) {
    ENTER();
    *out = device->gpu == MIG_GPU ? MAX_MIG : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t *device, unsigned index, device_t **out) {
    ENTER();
    if (device->gpu != MIG_GPU || index >= MAX_MIG)
        return INVALID_ARGUMENT;
    if (!cuts[index].alive)
        return NOT_FOUND;
    migs[index] = (device_t){MIG_GPU, cuts[index].gi, 0, 1};
    *out = &migs[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(device_t *device, unsigned *out) {
    ENTER();
    *out = device->gi;
    return device->is_mig ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetComputeInstanceId(device_t *device, unsigned *out) {
    ENTER();
    *out = device->ci;
    return device->is_mig ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetGpuInstanceProfileInfo(device_t *device, unsigned index, gi_profile_t *out) {
    (void)device;
    ENTER();
    if (index > 17)
        return INVALID_ARGUMENT;
    for (unsigned i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        if (profiles[i].index == index) {
            *out = profiles[i].info;
            return SUCCESS;
        }
    }
    return NOT_SUPPORTED;
}

int nvmlDeviceGetGpuInstanceById(device_t *device, unsigned id, gi_t **out) {
    ENTER();
    if (device->gpu != MIG_GPU)
        return NOT_SUPPORTED;
    for (unsigned i = 0; i < MAX_MIG; i++) {
        if (cuts[i].alive && cuts[i].gi == id) {
            gis[i] = (gi_t){MIG_GPU, i};
            *out = &gis[i];
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

int nvmlGpuInstanceGetInfo(gi_t *instance, gi_info_t *out) {
    ENTER();
    out->device = &gpus[MIG_GPU];
    out->id = cuts[instance->gi].gi;
    out->profile_id = cuts[instance->gi].profile_id;
    out->placement = (placement_t){cuts[instance->gi].start, cuts[instance->gi].size};
    return SUCCESS;
}

int nvmlGpuInstanceGetComputeInstanceById(gi_t *instance, unsigned id, ci_t **out) {
    ENTER();
    if (id != 0)
        return NOT_FOUND;
    cis[instance->gi] = (ci_t){MIG_GPU, instance->gi, 0};
    *out = &cis[instance->gi];
    return SUCCESS;
}

int nvmlComputeInstanceGetInfo_v2(ci_t *instance, ci_info_t *out) {
    ENTER();
    out->device = &gpus[MIG_GPU];
    out->gpu_instance = &gis[instance->gi];
    out->id = instance->ci;
    out->profile_id = cuts[instance->gi].ci_profile;
    out->placement = (placement_t){0, 1};
    return SUCCESS;
}

int nvmlGpuInstanceGetComputeInstanceProfileInfo(
    gi_t *instance, unsigned index, unsigned engine, ci_profile_t *out) {
    (void)instance;
    ENTER();
    if (index >= sizeof ci_profiles / sizeof *ci_profiles || engine != 0)
        return INVALID_ARGUMENT;
    if (!ci_profiles[index].slices)
        return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->id = index;
    out->slice_count = ci_profiles[index].slices;
    return SUCCESS;
}
