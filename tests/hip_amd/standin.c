// A stand-in for libamdhip64 and libhiprtc over the host's memory: exactly the functions that greta's driver `amd` calls,
// with the conventions of HIP's headers. Tests load it in their place; no kernel of gfx942 runs here.
//
// Streams are synchronous. A launch is written to STANDIN_LOG with its name, grid and packed arguments; of the kernels
// `add` alone is computed, so that a copy, a launch and a replay can be told from nothing having happened. A function
// named in STANDIN_FAIL fails; STANDIN_ARCH, STANDIN_MEMORY and STANDIN_DEVICES say what the devices are. STANDIN_STALE:
// a replay runs with the contents that buffers had when they were captured.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *setting(const char *name, const char *otherwise) {
  const char *v = getenv(name);
  return v && *v ? v : otherwise;
}

static void note(const char *text) {
  const char *path = getenv("STANDIN_LOG");
  FILE *f = path ? fopen(path, "a") : NULL;
  if (!f) return;
  fprintf(f, "%s\n", text);
  fclose(f);
}

// Whether this function is to fail: one of a list with commas, which may begin with a number. So many calls of any of them
// succeed first.
static int fails(const char *name) {
  static int before = 0;
  const char *list = getenv("STANDIN_FAIL");
  size_t n = strlen(name);
  for (const char *at = list; at && (at = strstr(at, name)); at += n) {
    if ((at == list || at[-1] == ',') && (at[n] == 0 || at[n] == ',')) return before++ >= atoi(list);
  }
  return 0;
}

#ifndef RTC

typedef int hipError_t;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500, LAUNCH_FAILURE = 719 };

const char *hipGetErrorName(hipError_t e) {
  switch (e) {
  case OUT_OF_MEMORY: return "hipErrorOutOfMemory";
  case INVALID_DEVICE: return "hipErrorInvalidDevice";
  case INVALID_IMAGE: return "hipErrorInvalidImage";
  case NOT_FOUND: return "hipErrorNotFound";
  case LAUNCH_FAILURE: return "hipErrorLaunchFailure";
  default: return e ? "hipErrorInvalidValue" : "hipSuccess";
  }
}
const char *hipGetErrorString(hipError_t e) { return e == LAUNCH_FAILURE ? "unspecified launch failure" : e ? "it failed" : "no error"; }

#define FAILS if (fails(__func__)) return LAUNCH_FAILURE

hipError_t hipInit(unsigned flags) { FAILS; return flags ? INVALID_VALUE : OK; }
hipError_t hipRuntimeGetVersion(int *v) { FAILS; *v = 60443483; return OK; }
hipError_t hipGetDeviceCount(int *n) { FAILS; *n = atoi(setting("STANDIN_DEVICES", "1")); return OK; }

// hipDeviceProp_tR0600 of hip_runtime_api.h up to the architecture's name; greta has room for all of it.
struct properties {
  char name[256], uuid[16], luid[8];
  unsigned luidDeviceNodeMask;
  size_t totalGlobalMem, sharedMemPerBlock;
  int regsPerBlock, warpSize;
  size_t memPitch;
  int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], clockRate;
  size_t totalConstMem;
  int major, minor;
  size_t textureAlignment, texturePitchAlignment;
  int deviceOverlap, multiProcessorCount, kernelExecTimeoutEnabled, integrated, canMapHostMemory, computeMode,
      maxTexture1D, maxTexture1DMipmap, maxTexture1DLinear, maxTexture2D[2], maxTexture2DMipmap[2],
      maxTexture2DLinear[3], maxTexture2DGather[2], maxTexture3D[3], maxTexture3DAlt[3], maxTextureCubemap,
      maxTexture1DLayered[2], maxTexture2DLayered[3], maxTextureCubemapLayered[2], maxSurface1D, maxSurface2D[2],
      maxSurface3D[3], maxSurface1DLayered[2], maxSurface2DLayered[3], maxSurfaceCubemap, maxSurfaceCubemapLayered[2];
  size_t surfaceAlignment;
  int concurrentKernels, ECCEnabled, pciBusID, pciDeviceID, pciDomainID, tccDriver, asyncEngineCount,
      unifiedAddressing, memoryClockRate, memoryBusWidth, l2CacheSize, persistingL2CacheMaxSize,
      maxThreadsPerMultiProcessor, streamPrioritiesSupported, globalL1CacheSupported, localL1CacheSupported;
  size_t sharedMemPerMultiprocessor;
  int regsPerMultiprocessor, managedMemory, isMultiGpuBoard, multiGpuBoardGroupID, hostNativeAtomicSupported,
      singleToDoublePrecisionPerfRatio, pageableMemoryAccess, concurrentManagedAccess, computePreemptionSupported,
      canUseHostPointerForRegisteredMem, cooperativeLaunch, cooperativeMultiDeviceLaunch;
  size_t sharedMemPerBlockOptin;
  int pageableMemoryAccessUsesHostPageTables, directManagedMemAccessFromHost, maxBlocksPerMultiProcessor,
      accessPolicyMaxWindowSize;
  size_t reservedSharedMemPerBlock;
  int hostRegisterSupported, sparseHipArraySupported, hostRegisterReadOnlySupported,
      timelineSemaphoreInteropSupported, memoryPoolsSupported, gpuDirectRDMASupported;
  unsigned gpuDirectRDMAFlushWritesOptions;
  int gpuDirectRDMAWritesOrdering;
  unsigned memoryPoolSupportedHandleTypes;
  int deferredMappingHipArraySupported, ipcEventSupported, clusterLaunch, unifiedFunctionPointers, reserved[63],
      hipReserved[32];
  char gcnArchName[256];
};

hipError_t hipGetDevicePropertiesR0600(struct properties *p, int device) {
  FAILS;
  if (device < 0 || device >= atoi(setting("STANDIN_DEVICES", "1"))) return INVALID_DEVICE;
  snprintf(p->name, sizeof p->name, "Stand-in %d", device);
  snprintf(p->gcnArchName, sizeof p->gcnArchName, "%s:sramecc+:xnack-", setting("STANDIN_ARCH", "gfx942"));
  p->totalGlobalMem = strtoull(setting("STANDIN_MEMORY", "8589934592"), NULL, 10);
  p->multiProcessorCount = 304;
  p->warpSize = 64;
  return OK;
}

// ---- memory

static size_t used;
static size_t all(void) { return strtoull(setting("STANDIN_MEMORY", "8589934592"), NULL, 10); }

hipError_t hipSetDevice(int device) { FAILS; return device < 0 ? INVALID_DEVICE : OK; }
hipError_t hipDeviceReset(void) { FAILS; return OK; }
hipError_t hipMemGetInfo(size_t *free_bytes, size_t *total) {
  FAILS;
  *free_bytes = all() - used;
  *total = all();
  return OK;
}
hipError_t hipMalloc(void **at, size_t bytes) {
  FAILS;
  if (used + bytes > all()) return OUT_OF_MEMORY;
  size_t *block = calloc(1, bytes + 64);
  if (!block) return OUT_OF_MEMORY;
  *block = bytes;
  used += bytes;
  *at = (char *)block + 64;
  return OK;
}
hipError_t hipFree(void *at) {
  FAILS;
  size_t *block = (size_t *)((char *)at - 64);
  used -= *block;
  free(block);
  return OK;
}
hipError_t hipHostMalloc(void **at, size_t bytes, unsigned flags) {
  FAILS;
  *at = flags ? NULL : malloc(bytes);
  return *at ? OK : INVALID_VALUE;
}
hipError_t hipHostFree(void *at) { FAILS; free(at); return OK; }

// ---- what a handle points to begins with what it is, so that arguments in a wrong order are noticed

enum { STREAM = 0x51, EVENT, MODULE, FUNCTION, GRAPH, READY };
#define IS(handle, what) if (!(handle) || *(int *)(handle) != what) return INVALID_VALUE

struct function { int what; char name[128]; };
struct launch { struct function f; unsigned grid[3], block; size_t bytes; unsigned char args[1024]; float *a, *b; };
struct graph { int what; size_t count; struct launch *launches; };
struct stream { int what; struct graph *noted; };
struct event { int what; double ms; };
struct module { int what; };

hipError_t hipStreamCreateWithFlags(struct stream **s, unsigned flags) {
  FAILS;
  *s = calloc(1, sizeof **s);
  (*s)->what = STREAM;
  return flags == 1 ? OK : INVALID_VALUE;
}
hipError_t hipStreamDestroy(struct stream *s) { FAILS; IS(s, STREAM); free(s); return OK; }
hipError_t hipStreamSynchronize(struct stream *s) { FAILS; IS(s, STREAM); return OK; }

hipError_t hipEventCreate(struct event **e) { FAILS; *e = calloc(1, sizeof **e); (*e)->what = EVENT; return OK; }
hipError_t hipEventDestroy(struct event *e) { FAILS; IS(e, EVENT); free(e); return OK; }
hipError_t hipEventRecord(struct event *e, struct stream *s) {
  FAILS;
  IS(e, EVENT);
  IS(s, STREAM);
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  e->ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
  return OK;
}
hipError_t hipEventSynchronize(struct event *e) { FAILS; IS(e, EVENT); return OK; }
hipError_t hipEventElapsedTime(float *ms, struct event *from, struct event *to) {
  FAILS;
  IS(from, EVENT);
  IS(to, EVENT);
  *ms = (float)(to->ms - from->ms);
  return OK;
}

hipError_t hipMemcpyHtoDAsync(void *to, const void *from, size_t n, struct stream *s) { FAILS; IS(s, STREAM); memcpy(to, from, n); return OK; }
hipError_t hipMemcpyDtoHAsync(void *to, void *from, size_t n, struct stream *s) { FAILS; IS(s, STREAM); memcpy(to, from, n); return OK; }
hipError_t hipMemcpyDtoDAsync(void *to, void *from, size_t n, struct stream *s) { FAILS; IS(s, STREAM); memmove(to, from, n); return OK; }

// ---- modules and launches

hipError_t hipModuleLoadData(struct module **m, const void *image) {
  FAILS;
  if (strncmp(image, "compiled by the stand-in", 24)) return INVALID_IMAGE;
  *m = calloc(1, sizeof **m);
  (*m)->what = MODULE;
  return OK;
}
hipError_t hipModuleUnload(struct module *m) { FAILS; IS(m, MODULE); free(m); return OK; }
hipError_t hipModuleGetFunction(struct function **f, struct module *m, const char *name) {
  FAILS;
  IS(m, MODULE);
  *f = calloc(1, sizeof **f);
  (*f)->what = FUNCTION;
  snprintf((*f)->name, sizeof (*f)->name, "%s", name);
  return OK;
}

struct add { float *out; const float *a, *b; unsigned count; };

static void run(const struct launch *l) {
  struct add x;
  if (strcmp(l->f.name, "add") || l->bytes < 28) return;
  memcpy(&x, l->args, 28);
  if (l->a) x.a = l->a, x.b = l->b;
  for (unsigned i = 0; i < x.count && i < l->grid[0] * l->block; i++) x.out[i] = x.a[i] + x.b[i];
}

hipError_t hipModuleLaunchKernel(struct function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                 unsigned bz, unsigned shared, struct stream *s, void **params, void **extra) {
  FAILS;
  IS(f, FUNCTION);
  IS(s, STREAM);
  struct launch l = {.f = *f, .grid = {gx, gy, gz}, .block = bx};
  const void *args = NULL;
  // Grids count workgroups; the list `extra` is 1 and the arguments, 2 and where their size stands, 3.
  if (params || !extra || !gx || !gy || !gz || !bx || by != 1 || bz != 1 || shared) return INVALID_VALUE;
  for (void **e = extra; *e != (void *)3; e += 2) {
    if (*e == (void *)1) args = e[1];
    else if (*e == (void *)2) l.bytes = *(size_t *)e[1];
    else return INVALID_VALUE;
  }
  if (!args || l.bytes > sizeof l.args) return INVALID_VALUE;
  memcpy(l.args, args, l.bytes);
  char text[2600];
  int n = snprintf(text, sizeof text, "%s %s %u %u %u x %u ", s->noted ? "noted" : "launch", f->name, gx, gy, gz, bx);
  for (size_t i = 0; i < l.bytes; i++) n += snprintf(text + n, sizeof text - n, "%02x", l.args[i]);
  note(text);
  if (!s->noted) {
    run(&l);
    return OK;
  }
  if (getenv("STANDIN_STALE") && !strcmp(f->name, "add")) {
    struct add x;
    memcpy(&x, l.args, 28);
    l.a = malloc(x.count * 4);
    l.b = malloc(x.count * 4);
    memcpy(l.a, x.a, x.count * 4);
    memcpy(l.b, x.b, x.count * 4);
  }
  s->noted->launches = realloc(s->noted->launches, (s->noted->count + 1) * sizeof l);
  s->noted->launches[s->noted->count++] = l;
  return OK;
}

// ---- captures

hipError_t hipStreamBeginCapture(struct stream *s, unsigned mode) {
  FAILS;
  IS(s, STREAM);
  if (s->noted || mode != 1) return INVALID_VALUE;
  s->noted = calloc(1, sizeof *s->noted);
  s->noted->what = GRAPH;
  return OK;
}
hipError_t hipStreamEndCapture(struct stream *s, struct graph **g) {
  FAILS;
  IS(s, STREAM);
  *g = s->noted;
  s->noted = NULL;
  return *g ? OK : INVALID_VALUE;
}
hipError_t hipGraphInstantiate(struct graph **ready, struct graph *g, void **node, char *log, size_t bytes) {
  FAILS;
  IS(g, GRAPH);
  if (node || log || bytes) return INVALID_VALUE;
  *ready = calloc(1, sizeof **ready);
  **ready = *g;
  (*ready)->what = READY;
  return OK;
}
hipError_t hipGraphDestroy(struct graph *g) { FAILS; IS(g, GRAPH); free(g); return OK; }
hipError_t hipGraphExecDestroy(struct graph *g) { FAILS; IS(g, READY); free(g->launches); free(g); return OK; }
hipError_t hipGraphLaunch(struct graph *g, struct stream *s) {
  FAILS;
  IS(g, READY);
  IS(s, STREAM);
  char text[64];
  snprintf(text, sizeof text, "replay %zu", g->count);
  note(text);
  for (size_t i = 0; i < g->count; i++) run(&g->launches[i]);
  return OK;
}

#else

typedef int hiprtcResult;
enum { OK = 0, INVALID_INPUT = 3, COMPILATION = 6 };
struct program { char *code; size_t size; const char *log; };

#define FAILS if (fails(__func__)) return INVALID_INPUT

const char *hiprtcGetErrorString(hiprtcResult r) { return r == COMPILATION ? "HIPRTC_ERROR_COMPILATION" : r ? "HIPRTC_ERROR_INVALID_INPUT" : "HIPRTC_SUCCESS"; }
hiprtcResult hiprtcVersion(int *major, int *minor) { FAILS; *major = 6; *minor = 4; return OK; }
hiprtcResult hiprtcCreateProgram(struct program **p, const char *text, const char *name, int count, const char **headers, const char **names) {
  FAILS;
  if (!text || !name || (count && (!headers || !names))) return INVALID_INPUT;
  // A header's text is no name.
  for (int i = 0; i < count; i++) if (!headers[i] || !names[i] || strchr(names[i], '\n')) return INVALID_INPUT;
  *p = calloc(1, sizeof **p);
  (*p)->size = strlen(text) + 32;
  (*p)->code = malloc((*p)->size);
  snprintf((*p)->code, (*p)->size, "compiled by the stand-in\n%s", text);
  (*p)->log = "";
  return OK;
}
hiprtcResult hiprtcCompileProgram(struct program *p, int count, const char **options) {
  int arch = 0;
  for (int i = 0; i < count; i++) {
    note(options[i]);
    arch |= !strcmp(options[i], "--offload-arch=gfx942");
  }
  if (fails(__func__)) p->log = "the stand-in does not like this source";
  return arch && !*p->log ? OK : COMPILATION;
}
hiprtcResult hiprtcDestroyProgram(struct program **p) { FAILS; free((*p)->code); free(*p); return OK; }
hiprtcResult hiprtcGetProgramLogSize(struct program *p, size_t *n) { FAILS; *n = strlen(p->log) + 1; return OK; }
hiprtcResult hiprtcGetProgramLog(struct program *p, char *text) { FAILS; strcpy(text, p->log); return OK; }
hiprtcResult hiprtcGetCodeSize(struct program *p, size_t *n) { FAILS; *n = p->size; return OK; }
hiprtcResult hiprtcGetCode(struct program *p, char *code) { FAILS; memcpy(code, p->code, p->size); return OK; }

#endif
