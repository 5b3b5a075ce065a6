/*
 * The native zlib and zstd as a Node addon. `decode(format, packets, lengths, times)` decompresses the payloads of one
 * multifd channel as a receiver does: one open stream over all packets, each decoded to its last byte into one buffer
 * of 512 KiB. `format` is 0 for zlib, 1 for zstd; `packets` holds the payloads back to back. `encode(format, packets,
 * lengths, level)` compresses such pages as a sender does: one open stream, flushed after each packet. Both return the
 * nanoseconds and the number of bytes produced, or throw on failure. For bench/ alone.
 */
#include <node_api.h>
#include <stdlib.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

enum { BUFFER = 512 * 1024, PAYLOAD = 1024 * 1024 };

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* The number of bytes produced; -1 if the data are bad. */
static int64_t decode_zlib(const uint8_t *packets, const uint32_t *lengths, size_t count, uint8_t *buffer)
{
    z_stream stream = { 0 };
    int64_t sum = 0;
    if (inflateInit(&stream) != Z_OK) return -1;
    for (size_t i = 0; i < count; packets += lengths[i++]) {
        stream.next_in = (uint8_t *)packets;
        stream.avail_in = lengths[i];
        stream.next_out = buffer;
        stream.avail_out = BUFFER;
        int code = inflate(&stream, Z_SYNC_FLUSH);
        if (code != Z_OK || stream.avail_in != 0) sum = INT64_MIN;
        sum += BUFFER - stream.avail_out;
    }
    inflateEnd(&stream);
    return sum;
}

static int64_t decode_zstd(const uint8_t *packets, const uint32_t *lengths, size_t count, uint8_t *buffer)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    int64_t sum = 0;
    for (size_t i = 0; i < count; packets += lengths[i++]) {
        ZSTD_inBuffer in = { packets, lengths[i], 0 };
        ZSTD_outBuffer out = { buffer, BUFFER, 0 };
        while (in.pos < in.size) {
            if (ZSTD_isError(ZSTD_decompressStream(stream, &out, &in))) {
                sum = INT64_MIN;
                break;
            }
        }
        sum += out.pos;
    }
    ZSTD_freeDStream(stream);
    return sum;
}

static napi_value decode(napi_env env, napi_callback_info info)
{
    size_t argc = 4, count;
    napi_value argv[4], result, value;
    uint32_t format, times;
    void *packets, *lengths;
    napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
    napi_get_value_uint32(env, argv[0], &format);
    napi_get_typedarray_info(env, argv[1], NULL, NULL, &packets, NULL, NULL);
    napi_get_typedarray_info(env, argv[2], NULL, &count, &lengths, NULL, NULL);
    napi_get_value_uint32(env, argv[3], &times);

    uint8_t *buffer = malloc(BUFFER);
    int64_t sum = 0;
    uint64_t start = now();
    for (uint32_t i = 0; i < times; i++) sum = (format ? decode_zstd : decode_zlib)(packets, lengths, count, buffer);
    uint64_t taken = now() - start;
    free(buffer);
    if (sum < 0) napi_throw_error(env, NULL, "the native library cannot decode these packets");

    napi_create_array_with_length(env, 2, &result);
    napi_create_double(env, taken, &value);
    napi_set_element(env, result, 0, value);
    napi_create_double(env, sum, &value);
    napi_set_element(env, result, 1, value);
    return result;
}

static int64_t encode_zlib(const uint8_t *packets, const uint32_t *lengths, size_t count, uint8_t *buffer, int level)
{
    z_stream stream = { 0 };
    int64_t sum = 0;
    if (deflateInit(&stream, level) != Z_OK) return -1;
    for (size_t i = 0; i < count; packets += lengths[i++]) {
        stream.next_in = (uint8_t *)packets;
        stream.avail_in = lengths[i];
        stream.next_out = buffer;
        stream.avail_out = PAYLOAD;
        if (deflate(&stream, Z_SYNC_FLUSH) != Z_OK || stream.avail_in != 0) sum = INT64_MIN;
        sum += PAYLOAD - stream.avail_out;
    }
    deflateEnd(&stream);
    return sum;
}

static int64_t encode_zstd(const uint8_t *packets, const uint32_t *lengths, size_t count, uint8_t *buffer, int level)
{
    ZSTD_CCtx *stream = ZSTD_createCCtx();
    int64_t sum = 0;
    ZSTD_CCtx_setParameter(stream, ZSTD_c_compressionLevel, level);
    for (size_t i = 0; i < count; packets += lengths[i++]) {
        ZSTD_inBuffer in = { packets, lengths[i], 0 };
        ZSTD_outBuffer out = { buffer, PAYLOAD, 0 };
        if (ZSTD_compressStream2(stream, &out, &in, ZSTD_e_flush) != 0) sum = INT64_MIN;
        sum += out.pos;
    }
    ZSTD_freeCCtx(stream);
    return sum;
}

static napi_value encode(napi_env env, napi_callback_info info)
{
    size_t argc = 4, count;
    napi_value argv[4], result, value;
    uint32_t format, level;
    void *packets, *lengths;
    napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
    napi_get_value_uint32(env, argv[0], &format);
    napi_get_typedarray_info(env, argv[1], NULL, NULL, &packets, NULL, NULL);
    napi_get_typedarray_info(env, argv[2], NULL, &count, &lengths, NULL, NULL);
    napi_get_value_uint32(env, argv[3], &level);

    uint8_t *buffer = malloc(PAYLOAD);
    uint64_t start = now();
    int64_t sum = (format ? encode_zstd : encode_zlib)(packets, lengths, count, buffer, level);
    uint64_t taken = now() - start;
    free(buffer);
    if (sum < 0) napi_throw_error(env, NULL, "the native library cannot compress these pages");

    napi_create_array_with_length(env, 2, &result);
    napi_create_double(env, taken, &value);
    napi_set_element(env, result, 0, value);
    napi_create_double(env, sum, &value);
    napi_set_element(env, result, 1, value);
    return result;
}

NAPI_MODULE_INIT()
{
    napi_value function;
    napi_create_function(env, "encode", NAPI_AUTO_LENGTH, encode, NULL, &function);
    napi_set_named_property(env, exports, "encode", function);
    napi_create_function(env, "decode", NAPI_AUTO_LENGTH, decode, NULL, &function);
    napi_set_named_property(env, exports, "decode", function);
    return exports;
}
