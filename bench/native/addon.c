/*
 * The baselines as a Node addon. `run(baseline, job, buffer, arguments, times)` does a job over one batch `times` times
 * in its own loop, so that the cost of the call does not count, and returns the nanoseconds and a sum of the results.
 * Arguments are offsets and counts in the buffer, which is the memory of the WASM instance. Nothing is checked: this is
 * for bench/ alone.
 */
#include <node_api.h>
#include <string.h>
#include <time.h>
#include "addon.h"

enum job { ZERO_SCAN, COMPARE, ENCODE, DECODE, HASH, CRC, READ, COPY, MULTIPLY, PIPELINE };

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* Arguments by position; what each means depends on the job. */
static uint64_t do_job(const struct kernels *k, enum job job, uint8_t *memory, const uint32_t *a)
{
    uint64_t sum = 0;
    switch (job) {
    case ZERO_SCAN: /* pages, page size, count, bitmap */
        return k->zero_scan(memory + a[0], a[1], a[2], memory + a[3]);
    case COMPARE: /* as, bs, page size, count, bitmap */
        return k->compare(memory + a[0], memory + a[1], a[2], a[3], memory + a[4]);
    case ENCODE: { /* olds (table), news (table), count, page size, limit, out, results (table) */
        const uint32_t *olds = (const void *)(memory + a[0]), *news = (const void *)(memory + a[1]);
        int32_t *results = (void *)(memory + a[6]);
        uint8_t *to = memory + a[5];
        for (uint32_t i = 0; i < a[2]; i++) {
            int n = k->encode(memory + olds[i], memory + news[i], a[3], to, a[4]);
            results[i] = n;
            if (n > 0) to += n;
        }
        return to - (memory + a[5]);
    }
    case DECODE: { /* sources, lengths, pages (tables), count, page size, results (table) */
        const uint32_t *sources = (const void *)(memory + a[0]), *lengths = (const void *)(memory + a[1]);
        const uint32_t *pages = (const void *)(memory + a[2]);
        int32_t *results = (void *)(memory + a[5]);
        for (uint32_t i = 0; i < a[3]; i++) {
            results[i] = k->decode(memory + sources[i], lengths[i], memory + pages[i], a[4]);
            sum += results[i] < 0;
        }
        return sum;
    }
    case HASH:
    case CRC: /* pages, page size, count, words */
        for (uint32_t i = 0; i < a[2]; i++) {
            const uint8_t *page = memory + a[0] + (size_t)i * a[1];
            ((uint32_t *)(memory + a[3]))[i] = job == HASH ? k->hash(page, a[1]) : k->crc(page, a[1]);
        }
        return 0;
    case READ: /* address, bytes */
        for (uint32_t i = 0; i < a[1]; i += 64) {
            const uint64_t *w = (const void *)(memory + a[0] + i);
            sum += w[0] ^ w[1] ^ w[2] ^ w[3] ^ w[4] ^ w[5] ^ w[6] ^ w[7];
        }
        return sum;
    case COPY: /* to, from, bytes */
        memcpy(memory + a[0], memory + a[1], a[2]);
        return 0;
    case MULTIPLY: { /* count: the number of 64-bit multiplications, in eight independent chains */
        uint64_t v[8] = { 1, 3, 5, 7, 9, 11, 13, 15 };
        for (uint32_t i = 0; i < a[0]; i += 8) {
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                v[k] *= 0x9e3779b185ebca87;
                __asm__ volatile("" : "+r"(v[k]));
            }
        }
        for (int k = 0; k < 8; k++) sum += v[k];
        return sum;
    }
    case PIPELINE: { /* as ENCODE, then: first new page, bitmap, hashes. Scan, encode, hash. */
        uint32_t scan[] = { a[7], a[3], a[2], a[8] }, words[] = { a[7], a[3], a[2], a[9] };
        sum = do_job(k, ZERO_SCAN, memory, scan);
        sum += do_job(k, ENCODE, memory, a);
        return sum + do_job(k, HASH, memory, words);
    }
    }
    return 0;
}

static napi_value run(napi_env env, napi_callback_info info)
{
    size_t argc = 5, count;
    napi_value argv[5], result, value;
    uint32_t baseline, job, times;
    void *memory, *arguments;
    napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
    napi_get_value_uint32(env, argv[0], &baseline);
    napi_get_value_uint32(env, argv[1], &job);
    napi_get_typedarray_info(env, argv[2], NULL, NULL, &memory, NULL, NULL);
    napi_get_typedarray_info(env, argv[3], NULL, &count, &arguments, NULL, NULL);
    napi_get_value_uint32(env, argv[4], &times);

    const struct kernels *baselines[] = { &scalar_kernels, &narrow_kernels, &native_kernels };
    const struct kernels *kernels = baselines[baseline];
    uint64_t sum = 0, start = now();
    for (uint32_t i = 0; i < times; i++) sum += do_job(kernels, job, memory, arguments);
    uint64_t taken = now() - start;

    napi_create_array_with_length(env, 2, &result);
    napi_create_double(env, taken, &value);
    napi_set_element(env, result, 0, value);
    napi_create_double(env, sum & 0xffffffff, &value);
    napi_set_element(env, result, 1, value);
    return result;
}

NAPI_MODULE_INIT()
{
    napi_value function;
    fill_crc_tables();
    napi_create_function(env, "run", NAPI_AUTO_LENGTH, run, NULL, &function);
    napi_set_named_property(env, exports, "run", function);
    return exports;
}
