// Just enough JSON to read a configuration and to write a value.
//
// The router hands over nothing but valid JSON without white space around it. So these functions look
// for what they want and do not check the rest; they never read beyond the text.
#pragma once

#include "hookyard.h"

// The first byte at or after `at` that is not white space.
static inline size_t json_blank(hk_text json, size_t at) {
    while (at < json.size && (json.at[at] == ' ' || json.at[at] == '\t' || json.at[at] == '\n' ||
                              json.at[at] == '\r')) {
        at++;
    }
    return at;
}

// Where the value that begins at `at` ends.
static inline size_t json_end(hk_text json, size_t at) {
    size_t depth = 0;
    bool is_string = false;
    for (; at < json.size; at++) {
        char it = json.at[at];
        if (is_string) {
            if (it == '\\') at++;
            if (it != '"') continue;
            is_string = false;
            if (depth == 0) return at + 1;
        } else if (it == '"') {
            is_string = true;
        } else if (it == '{' || it == '[') {
            depth++;
        } else if (it == '}' || it == ']') {
            if (depth == 0) return at;
            if (--depth == 0) return at + 1;
        } else if (depth == 0 && (it == ',' || it == ':' || json_blank(json, at) > at)) {
            return at;
        }
    }
    return json.size;
}

// Takes the next value of `json` off its front, and what separates it from the one after it.
static inline hk_text json_next(hk_text *json) {
    size_t start = json_blank(*json, 0);
    size_t end = json_end(*json, start);
    hk_text value = {json->at + start, end - start};
    size_t after = json_blank(*json, end);
    if (after < json->size && (json->at[after] == ',' || json->at[after] == ':')) after++;
    after = json_blank(*json, after);
    *json = (hk_text){json->at + after, json->size - after};
    return value;
}

// What is between the brackets of an object or an array: to be taken apart by `json_next`.
static inline hk_text json_inside(hk_text json) {
    hk_text inside = json.size < 2 ? (hk_text){0} : (hk_text){json.at + 1, json.size - 2};
    size_t start = json_blank(inside, 0);
    return (hk_text){inside.at + start, inside.size - start};
}

// Four hexadecimal digits, or -1.
static inline int32_t json_hex(hk_text json, size_t at) {
    int32_t value = 0;
    for (size_t end = at + 4; at < end; at++) {
        char it = at < json.size ? json.at[at] : 0;
        int32_t digit = it >= '0' && it <= '9'   ? it - '0'
                        : it >= 'a' && it <= 'f' ? it - 'a' + 10
                        : it >= 'A' && it <= 'F' ? it - 'A' + 10
                                                 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

// The text that a JSON string stands for; none where `json` is not a string.
static inline hk_maybe_text json_string(hk_text json) {
    if (json.size < 2 || json.at[0] != '"') return HK_NONE;
    json = (hk_text){json.at + 1, json.size - 2};
    // What an escape stands for is never longer than the escape.
    char *text = hk_take(json.size, 1);
    size_t size = 0;
    for (size_t at = 0; at < json.size; at++) {
        if (json.at[at] != '\\' || at + 1 == json.size) {
            text[size++] = json.at[at];
            continue;
        }
        char it = json.at[++at];
        if (it != 'u') {
            text[size++] = it == 'b'   ? '\b'
                           : it == 'f' ? '\f'
                           : it == 'n' ? '\n'
                           : it == 'r' ? '\r'
                           : it == 't' ? '\t'
                                       : it;
            continue;
        }
        int32_t code = json_hex(json, at + 1);
        at += 4;
        if (code >= 0xd800 && code < 0xdc00 && at + 2 < json.size && json.at[at + 1] == '\\' &&
            json.at[at + 2] == 'u') {
            int32_t low = json_hex(json, at + 3);
            if (low >= 0xdc00 && low < 0xe000) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                at += 6;
            }
        }
        // Half of a pair is no character.
        if (code < 0 || (code >= 0xd800 && code < 0xe000)) code = 0xfffd;
        if (code < 0x80) {
            text[size++] = (char)code;
        } else if (code < 0x800) {
            text[size++] = (char)(0xc0 | code >> 6);
            text[size++] = (char)(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            text[size++] = (char)(0xe0 | code >> 12);
            text[size++] = (char)(0x80 | (code >> 6 & 0x3f));
            text[size++] = (char)(0x80 | (code & 0x3f));
        } else {
            text[size++] = (char)(0xf0 | code >> 18);
            text[size++] = (char)(0x80 | (code >> 12 & 0x3f));
            text[size++] = (char)(0x80 | (code >> 6 & 0x3f));
            text[size++] = (char)(0x80 | (code & 0x3f));
        }
    }
    return HK_SOME(((hk_text){text, size}));
}

// The JSON string that stands for a text.
static inline hk_text json_quoted(hk_text text) {
    char *json = hk_take(6 * text.size + 2, 1);
    size_t size = 0;
    json[size++] = '"';
    for (size_t at = 0; at < text.size; at++) {
        unsigned char it = (unsigned char)text.at[at];
        if (it < 0x20) {
            hk_copy(json + size, "\\u00", 4);
            json[size + 4] = "0123456789abcdef"[it >> 4];
            json[size + 5] = "0123456789abcdef"[it & 15];
            size += 6;
            continue;
        }
        if (it == '"' || it == '\\') json[size++] = '\\';
        json[size++] = (char)it;
    }
    json[size++] = '"';
    return (hk_text){json, size};
}

// The raw JSON text of an object's member; none where there is none, or where `json` is not an object.
static inline hk_maybe_text json_member(hk_text json, hk_text name) {
    if (json.size == 0 || json.at[0] != '{') return HK_NONE;
    hk_text rest = json_inside(json);
    while (rest.size > 0) {
        hk_text key = json_string(json_next(&rest)).value;
        hk_text value = json_next(&rest);
        if (hk_equal(key, name)) return HK_SOME(value);
    }
    return HK_NONE;
}

typedef struct {
    bool is_some;
    double value;
} json_maybe_number;

// The number that JSON text stands for; none where it is not a number. It is exact to the last bit for
// up to 15 digits and powers of ten up to 22, and off by a few bits beyond. Ids of 64 bits do not fit
// into a `double`: leave those as text.
static inline json_maybe_number json_number(hk_text json) {
    size_t at = 0;
    bool is_negative = json.size > 0 && json.at[0] == '-';
    if (is_negative) at++;
    if (at == json.size || json.at[at] < '0' || json.at[at] > '9') return (json_maybe_number){0};

    uint64_t digits = 0;
    int32_t power = 0;
    bool is_fraction = false;
    for (; at < json.size; at++) {
        char it = json.at[at];
        if (it == '.') {
            is_fraction = true;
        } else if (it < '0' || it > '9') {
            break;
        } else if (digits < UINT64_MAX / 10 - 1) {
            digits = digits * 10 + (uint64_t)(it - '0');
            power -= is_fraction;
        } else {
            power += !is_fraction;
        }
    }
    if (at < json.size) {
        at++; // the `e`
        bool is_small = at < json.size && json.at[at] == '-';
        if (at < json.size && (json.at[at] == '-' || json.at[at] == '+')) at++;
        int32_t exponent = 0;
        for (; at < json.size && exponent < 10000; at++) {
            exponent = exponent * 10 + (json.at[at] - '0');
        }
        power += is_small ? -exponent : exponent;
    }

    double value = (double)digits;
    double scale = 1;
    // Beyond this, everything is infinite or zero.
    for (int32_t i = 0; i < (power < 0 ? -power : power) && i < 400; i++) scale *= 10;
    if (digits > 0) value = power < 0 ? value / scale : value * scale;
    return (json_maybe_number){true, is_negative ? -value : value};
}
