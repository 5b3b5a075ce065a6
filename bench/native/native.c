/*
 * The ideas of our WASM kernels in C: the same masks and edges, with intrinsics. Built twice with gcc -O3: with vectors
 * of 32 bytes (AVX2), and of 16 (VECTOR=16), which is all that WebAssembly has. This separates the cost of the vector
 * width from the cost of the engine. The zero scan samples three bytes and tests 128 B per step, as QEMU's does.
 */
#include <immintrin.h>
#include <string.h>
#include "addon.h"

#if VECTOR == 16
typedef __m128i vector;
#define KERNELS narrow_kernels
static inline vector load(const uint8_t *at) { return _mm_loadu_si128((const vector *)at); }
static inline void store(uint8_t *at, vector v) { _mm_storeu_si128((vector *)at, v); }
static inline vector or(vector a, vector b) { return _mm_or_si128(a, b); }
static inline vector xor(vector a, vector b) { return _mm_xor_si128(a, b); }
static inline int is_clear(vector v) { return _mm_testz_si128(v, v); }
static inline uint64_t equal_mask(vector a, vector b) { return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(a, b)); }
#else
typedef __m256i vector;
#define KERNELS native_kernels
static inline vector load(const uint8_t *at) { return _mm256_loadu_si256((const vector *)at); }
static inline void store(uint8_t *at, vector v) { _mm256_storeu_si256((vector *)at, v); }
static inline vector or(vector a, vector b) { return _mm256_or_si256(a, b); }
static inline vector xor(vector a, vector b) { return _mm256_xor_si256(a, b); }
static inline int is_clear(vector v) { return _mm256_testz_si256(v, v); }
static inline uint64_t equal_mask(vector a, vector b)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b));
}
#endif

enum { WIDTH = sizeof(vector), SPAN = 128 };

static int is_zero(const uint8_t *page, size_t page_size)
{
    if (page[0] | page[page_size / 2] | page[page_size - 1]) return 0;
    for (size_t i = 0; i < page_size; i += SPAN) {
        vector any = load(page + i);
#pragma GCC unroll 8
        for (size_t k = WIDTH; k < SPAN; k += WIDTH) any = or(any, load(page + i + k));
        if (!is_clear(any)) return 0;
    }
    return 1;
}

static uint32_t zero_scan(const uint8_t *pages, size_t page_size, size_t count, uint8_t *bitmap)
{
    uint32_t zeroes = 0;
    memset(bitmap, 0, (count + 7) / 8);
    for (size_t i = 0; i < count; i++) {
        uint32_t bit = is_zero(pages + i * page_size, page_size);
        bitmap[i / 8] |= bit << (i % 8);
        zeroes += bit;
    }
    return zeroes;
}

static inline int is_span_equal(const uint8_t *a, const uint8_t *b)
{
    vector any = xor(load(a), load(b));
#pragma GCC unroll 8
    for (size_t k = WIDTH; k < SPAN; k += WIDTH) any = or(any, xor(load(a + k), load(b + k)));
    return is_clear(any);
}

static int is_equal(const uint8_t *a, const uint8_t *b, size_t page_size)
{
    if (a[0] != b[0] || a[page_size / 2] != b[page_size / 2] || a[page_size - 1] != b[page_size - 1]) return 0;
    for (size_t i = 0; i < page_size; i += 128) {
        if (!is_span_equal(a + i, b + i)) return 0;
    }
    return 1;
}

static uint32_t compare(const uint8_t *a, const uint8_t *b, size_t page_size, size_t count, uint8_t *bitmap)
{
    uint32_t differing = 0;
    memset(bitmap, 0, (count + 7) / 8);
    for (size_t i = 0; i < count; i++) {
        uint32_t bit = !is_equal(a + i * page_size, b + i * page_size, page_size);
        bitmap[i / 8] |= bit << (i % 8);
        differing += bit;
    }
    return differing;
}

static inline uint64_t differ64(const uint8_t *a, const uint8_t *b)
{
    uint64_t equal = 0;
#pragma GCC unroll 4
    for (size_t k = 0; k < 64; k += WIDTH) equal |= equal_mask(load(a + k), load(b + k)) << k;
    return ~equal;
}

static inline uint8_t *put_count(uint8_t *to, size_t count)
{
    if (count < 0x80) {
        *to = count;
        return to + 1;
    }
    to[0] = (count & 0x7f) | 0x80;
    to[1] = count >> 7;
    return to + 2;
}

static int encode(const uint8_t *old, const uint8_t *next, size_t page_size, uint8_t *out, size_t limit)
{
    uint64_t edges[256];
    uint32_t blocks[256];
    size_t entries = 0, least = 0;
    uint64_t carry = 0;
    if (limit < 2) return -1;
    for (size_t at = 0; at < page_size; at += 128) {
        if (is_span_equal(old + at, next + at)) {
            edges[entries] = 1;
            blocks[entries] = at;
            entries += carry;
            carry = 0;
            continue;
        }
        for (size_t block = at; block < at + 128; block += 64) {
            uint64_t differs = differ64(old + block, next + block);
            uint64_t shifted = differs << 1 | carry;
            edges[entries] = differs ^ shifted;
            blocks[entries] = block;
            entries += edges[entries] != 0;
            least += __builtin_popcountll(differs) + 2 * __builtin_popcountll(differs & ~shifted);
            carry = differs >> 63;
        }
        if (least > limit) return -1;
    }

    uint8_t *to = out, *out_end = out + limit;
    size_t done = 0, start = 0;
    int is_open = 0;
    for (size_t entry = 0; entry <= entries; entry++) {
        uint64_t left = entry < entries ? edges[entry] : (uint64_t)is_open;
        size_t block = entry < entries ? blocks[entry] : page_size;
        while (left) {
            size_t at = block + __builtin_ctzll(left);
            left &= left - 1;
            is_open = !is_open;
            if (is_open) {
                start = at;
                continue;
            }
            size_t length = at - start;
            to = put_count(to, start - done);
            if (to + 2 > out_end) return -1;
            to = put_count(to, length);
            if (to + length > out_end) return -1;
            if (length <= WIDTH && start + WIDTH <= page_size && to + WIDTH <= out_end) {
                store(to, load(next + start));
            } else {
                memcpy(to, next + start, length);
            }
            to += length;
            done = at;
            if (at < page_size && to + 2 > out_end) return -1;
        }
    }
    return to - out;
}

/* Literals of up to 64 bytes are two stores that overlap; longer ones use memcpy. */
static inline void copy_literal(uint8_t *to, const uint8_t *from, size_t n)
{
    if (n > 64) {
        memcpy(to, from, n);
    } else if (n >= 32) {
        for (size_t k = 0; k < 32; k += WIDTH) {
            vector head = load(from + k), tail = load(from + n - 32 + k);
            store(to + k, head);
            store(to + n - 32 + k, tail);
        }
    } else if (n >= 16) {
        memcpy(to, from, 16);
        memcpy(to + n - 16, from + n - 16, 16);
    } else if (n >= 8) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else {
        to[0] = from[0];
        to[n / 2] = from[n / 2];
        to[n - 1] = from[n - 1];
    }
}

static int decode(const uint8_t *source, size_t length, uint8_t *page, size_t page_size)
{
    size_t i = 0, d = 0;
    while (i < length) {
        for (int is_literal = 0; is_literal < 2; is_literal++) {
            if (length - i < 2) return -1;
            size_t at = i, count = source[i++];
            if (count & 0x80) {
                if (source[i] & 0x80) return -1;
                count = (count & 0x7f) | (size_t)source[i++] << 7;
            }
            if (count == 0 && (is_literal || at != 0)) return -1;
            if (d + count > page_size) return -1;
            if (is_literal) {
                if (i + count > length) return -1;
                copy_literal(page + d, source + i, count);
                i += count;
            }
            d += count;
        }
    }
    return d;
}

/* SIMD would gain nothing. */
static uint32_t hash(const uint8_t *page, size_t page_size)
{
    return scalar_kernels.hash(page, page_size);
}

static uint32_t crc(const uint8_t *page, size_t page_size)
{
    return scalar_kernels.crc(page, page_size);
}

const struct kernels KERNELS = { zero_scan, compare, encode, decode, hash, crc };
