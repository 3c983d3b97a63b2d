// The contract between Hookyard and a plugin, in C. `wit/plugin.wit` says what each part means.
//
// WebAssembly's canonical ABI lays records, variants and lists out as a C compiler lays out the structs
// below, so nothing is converted: what the router hands over is read where it lies, and what a plugin
// answers is read by the router in the same way.
//
// There is no C library, and none is needed. A run has a fresh instance, so memory is taken and never
// given back. Texts are UTF-8 and do not end in a zero byte: their size is beside them.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---------------------------------------------------------------------------------------- texts

typedef struct {
    const char *at;
    size_t size;
} hk_text;

typedef struct {
    bool is_some;
    hk_text value;
} hk_maybe_text;

typedef struct {
    const hk_text *items;
    size_t count;
} hk_texts;

// A literal as a text: `HK("order.paid")`.
#define HK(literal) ((hk_text){(literal), sizeof(literal) - 1})

// The optional text that is there. The one that is not is `HK_NONE`.
#define HK_SOME(text) ((hk_maybe_text){true, (text)})
#define HK_NONE ((hk_maybe_text){false, {0}})

// --------------------------------------------------------------------------------------- memory

// The first byte after the plugin's data, set by the linker.
extern unsigned char __heap_base;

// Takes memory, filled with zeros. Traps when the router grants no more: the delivery then fails with
// `plugin-out-of-memory`.
static inline void *hk_take(size_t size, size_t align) {
    static uintptr_t next, end;
    const uintptr_t page = 64 * 1024;
    if (end == 0) {
        next = (uintptr_t)&__heap_base;
        end = __builtin_wasm_memory_size(0) * page;
    }
    uintptr_t start = (next + align - 1) & ~(uintptr_t)(align - 1);
    if (start < next || size > UINTPTR_MAX - page - start) __builtin_trap();
    next = start + size;
    if (next > end) {
        uintptr_t pages = (next - end + page - 1) / page;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) __builtin_trap();
        end += pages * page;
    }
    return (void *)start;
}

static inline void hk_copy(void *to, const void *from, size_t size) {
    __builtin_memcpy(to, from, size);
}

static inline bool hk_equal(hk_text left, hk_text right) {
    if (left.size != right.size) return false;
    for (size_t i = 0; i < left.size; i++) {
        if (left.at[i] != right.at[i]) return false;
    }
    return true;
}

// The two texts as one.
static inline hk_text hk_join(hk_text left, hk_text right) {
    char *at = hk_take(left.size + right.size, 1);
    hk_copy(at, left.at, left.size);
    hk_copy(at + left.size, right.at, right.size);
    return (hk_text){at, left.size + right.size};
}

// ------------------------------------------------------------------------------------ the event

// CloudEvents attributes that are not of the specification: names and values.
typedef struct {
    hk_text name;
    hk_text value;
} hk_attribute_pair;

typedef struct {
    const hk_attribute_pair *items;
    size_t count;
} hk_attribute_pairs;

typedef struct {
    hk_text id;
    hk_text source;
    hk_text type;
    hk_maybe_text subject;
    hk_maybe_text time;
    hk_maybe_text datacontenttype;
    hk_maybe_text dataschema;
    hk_attribute_pairs extensions;
} hk_attributes;

typedef struct {
    const hk_maybe_text *items;
    size_t count;
} hk_maybe_texts;

#define HK_IMPORT(interface, function)                                                              \
    __attribute__((import_module("hookyard:plugin/" interface "@1.0.0"), import_name(function)))

HK_IMPORT("event", "all-attributes") void hk_import_all_attributes(hk_attributes *answer);
HK_IMPORT("event", "attribute")
void hk_import_attribute(const char *name, size_t size, hk_maybe_text *answer);
HK_IMPORT("event", "get")
void hk_import_get(const char *pointer, size_t size, hk_maybe_text *answer);
HK_IMPORT("event", "get-many")
void hk_import_get_many(const hk_text *pointers, size_t count, hk_maybe_texts *answer);
HK_IMPORT("event", "size") uint32_t hk_import_size(void);
HK_IMPORT("event", "data") void hk_import_data(hk_text *answer);
HK_IMPORT("event", "text") void hk_import_text(hk_maybe_text *answer);
HK_IMPORT("event", "alternate-id")
void hk_import_alternate_id(const char *kind, size_t size, hk_maybe_text *answer);
HK_IMPORT("log", "log") void hk_import_log(uint32_t level, const char *message, size_t size);

// The raw JSON text of the value at a JSON Pointer (RFC 6901) into the event's data. It stays in the
// router: a plugin pays for what it reads. Where there is no such value, the answer's `value` is empty.
static inline hk_maybe_text hk_get(hk_text pointer) {
    hk_maybe_text answer = HK_NONE;
    hk_import_get(pointer.at, pointer.size, &answer);
    return answer;
}

// The values at several pointers, for the price of one call.
static inline hk_maybe_texts hk_get_many(hk_texts pointers) {
    hk_maybe_texts answer = {0};
    hk_import_get_many(pointers.items, pointers.count, &answer);
    return answer;
}

// The whole data as they came: not always JSON, and not always UTF-8.
static inline hk_text hk_data(void) {
    hk_text answer = {0};
    hk_import_data(&answer);
    return answer;
}

// The whole data; none where they are not UTF-8.
static inline hk_maybe_text hk_data_text(void) {
    hk_maybe_text answer = HK_NONE;
    hk_import_text(&answer);
    return answer;
}

// The length of the data in bytes.
static inline size_t hk_data_size(void) {
    return hk_import_size();
}

// One CloudEvents attribute by its name, extensions included.
static inline hk_maybe_text hk_attribute(hk_text name) {
    hk_maybe_text answer = HK_NONE;
    hk_import_attribute(name.at, name.size, &answer);
    return answer;
}

static inline hk_attributes hk_all_attributes(void) {
    hk_attributes answer = {0};
    hk_import_all_attributes(&answer);
    return answer;
}

// The alternate id of this kind of the profile that the event is about.
static inline hk_maybe_text hk_alternate_id(hk_text kind) {
    hk_maybe_text answer = HK_NONE;
    hk_import_alternate_id(kind.at, kind.size, &answer);
    return answer;
}

typedef enum { HK_TRACE, HK_DEBUG, HK_INFO, HK_WARN, HK_ERROR } hk_level;

// Writes a line to the plugin's log. 20 lines and 4 KiB of them a run are kept.
static inline void hk_log(hk_level level, hk_text message) {
    hk_import_log(level, message.at, message.size);
}

// ----------------------------------------------------------------------------------- the answers

// `code` is short and stable, since people search by it; `detail` is for reading.
typedef struct {
    hk_text code;
    hk_maybe_text detail;
} hk_reason;

typedef struct {
    bool is_some;
    hk_reason value;
} hk_maybe_reason;

// No `value` removes what is at `pointer`.
typedef struct {
    hk_text pointer;
    hk_maybe_text value;
} hk_edit;

typedef struct {
    hk_edit *items;
    size_t count;
} hk_edits;

// What becomes of the data. Prefer edits: every byte that they do not touch stays as it was.
typedef struct {
    enum : uint8_t { HK_DATA_SAME, HK_DATA_EDITS, HK_DATA_BYTES, HK_DATA_TEXT } kind;
    union {
        hk_edits edits;
        hk_text bytes;
        hk_text text;
    };
} hk_new_data;

// What a delivery becomes. `{0}` changes nothing; `hk_set`, `hk_unset`, `hk_put` and `hk_remove` add.
typedef struct {
    hk_attribute_pairs set;
    hk_texts unset;
    hk_new_data data;
} hk_output;

typedef struct {
    const hk_output *items;
    size_t count;
} hk_outputs;

typedef struct {
    enum : uint8_t { HK_PASS, HK_REPLACE, HK_SPLIT, HK_DROP, HK_FAIL } kind;
    union {
        hk_output replace;
        hk_outputs split;
        hk_maybe_reason drop;
        hk_reason fail;
    };
} hk_verdict;

typedef struct {
    enum : uint8_t { HK_ACCEPT, HK_REJECT } kind;
    hk_maybe_reason reject;
} hk_decision;

// A list with room for one more item, which the caller fills in.
static inline void *hk_grown(const void *items, size_t count, size_t item_size) {
    char *grown = hk_take((count + 1) * item_size, _Alignof(hk_text));
    hk_copy(grown, items, count * item_size);
    return grown;
}

// Sets a CloudEvents attribute.
static inline void hk_set(hk_output *output, hk_text name, hk_text value) {
    hk_attribute_pair *items = hk_grown(output->set.items, output->set.count, sizeof *items);
    items[output->set.count] = (hk_attribute_pair){name, value};
    output->set = (hk_attribute_pairs){items, output->set.count + 1};
}

// Takes an optional CloudEvents attribute away.
static inline void hk_unset(hk_output *output, hk_text name) {
    hk_text *items = hk_grown(output->unset.items, output->unset.count, sizeof *items);
    items[output->unset.count] = name;
    output->unset = (hk_texts){items, output->unset.count + 1};
}

static inline void hk_add_edit(hk_output *output, hk_edit edit) {
    hk_edits before = output->data.kind == HK_DATA_EDITS ? output->data.edits : (hk_edits){0};
    hk_edit *items = hk_grown(before.items, before.count, sizeof *items);
    items[before.count] = edit;
    output->data = (hk_new_data){HK_DATA_EDITS, .edits = {items, before.count + 1}};
}

// Puts raw JSON text at a JSON Pointer: in the place of the value that is there, or as a new member of
// an object, or (at index `-`) as a new item at the end of an array.
static inline void hk_put(hk_output *output, hk_text pointer, hk_text json) {
    hk_add_edit(output, (hk_edit){pointer, HK_SOME(json)});
}

// Removes the value at a JSON Pointer. Nothing happens where there is none.
static inline void hk_remove(hk_output *output, hk_text pointer) {
    hk_add_edit(output, (hk_edit){pointer, HK_NONE});
}

// The event goes on as it is.
static inline hk_verdict hk_pass(void) {
    return (hk_verdict){.kind = HK_PASS};
}

// The event goes on changed.
static inline hk_verdict hk_replace(hk_output output) {
    return (hk_verdict){HK_REPLACE, .replace = output};
}

// The event goes on as several.
static inline hk_verdict hk_split(const hk_output *items, size_t count) {
    return (hk_verdict){HK_SPLIT, .split = {items, count}};
}

// The subscription does not get the event: a decision, shown under `code`.
static inline hk_verdict hk_drop(hk_text code) {
    return (hk_verdict){HK_DROP, .drop = {true, {code, HK_NONE}}};
}

// The event cannot be handled: the delivery is shown as failed.
static inline hk_verdict hk_fail(hk_text code, hk_text detail) {
    return (hk_verdict){HK_FAIL, .fail = {code, HK_SOME(detail)}};
}

// For a filter.
static inline hk_decision hk_accept_if(bool condition, hk_text code) {
    if (condition) return (hk_decision){.kind = HK_ACCEPT};
    return (hk_decision){HK_REJECT, .reject = {true, {code, HK_NONE}}};
}

// ----------------------------------------------------------------------------------- the exports

typedef struct {
    bool is_some;
    hk_texts value;
} hk_reads;

// What a plugin says of itself when it is uploaded.
typedef struct {
    hk_text name;
    hk_text version;
    hk_text summary;
    // JSON Schema (2020-12) of the configuration; none means that there is nothing to configure.
    hk_maybe_text config_schema;
    // The JSON Pointers that the plugin reads. When given, it can read nothing else.
    hk_reads reads;
} hk_manifest;

// What `configure` answers: that all is well, or why the configuration cannot be used.
typedef struct {
    bool is_error;
    hk_text error;
} hk_configured;

#define HK_CONFIGURED ((hk_configured){0})
#define HK_REFUSED(text) ((hk_configured){true, (text)})

// Where and for whom a run happens. Nothing in it differs between two attempts of one delivery.
typedef struct {
    hk_text subscription;
    hk_text format;
    hk_maybe_text locale;
    // When the event was accepted, in milliseconds since the Unix epoch: the only clock there is.
    uint64_t received_ms;
} hk_context;

#define HK_EXPORT(name) __attribute__((export_name(name), used))

// What the router hands over is put into memory that it takes by this function.
HK_EXPORT("cabi_realloc")
void *hk_realloc(void *block, size_t size, size_t align, size_t new_size) {
    void *new_block = hk_take(new_size, align);
    hk_copy(new_block, block, size < new_size ? size : new_size);
    return new_block;
}

// Each plugin: `hk_manifest describe(void)` and `hk_configured configure(hk_text config)`. `config` is
// JSON text that already fits the schema. It is called once before a run.
#define HK_EXPORT_LIFECYCLE(describe, configure)                                                    \
    HK_EXPORT("hookyard:plugin/lifecycle@1.0.0#describe")                                           \
    const hk_manifest *hk_export_describe(void) {                                            \
        static hk_manifest answer;                                                                  \
        answer = describe();                                                                        \
        return &answer;                                                                             \
    }                                                                                               \
    HK_EXPORT("hookyard:plugin/lifecycle@1.0.0#configure")                                          \
    const hk_configured *hk_export_configure(const char *config, size_t size) {              \
        static hk_configured answer;                                                                \
        answer = configure((hk_text){config, size});                                                \
        return &answer;                                                                             \
    }

#define HK_EXPORT_RUN(interface, type, run)                                                         \
    HK_EXPORT("hookyard:plugin/" #interface "@1.0.0#" #interface)                                   \
    const type *hk_export_##interface(                                                       \
        const char *subscription, size_t subscription_size, const char *format, size_t format_size, \
        uint32_t has_locale, const char *locale, size_t locale_size, uint64_t received_ms) {        \
        static type answer;                                                                         \
        const hk_context context = {                                                                \
            {subscription, subscription_size},                                                      \
            {format, format_size},                                                                  \
            {has_locale != 0, {locale, locale_size}},                                               \
            received_ms,                                                                            \
        };                                                                                          \
        answer = run(&context);                                                                     \
        return &answer;                                                                             \
    }

// Changes what is delivered: `hk_verdict transform(const hk_context *context)`.
#define HK_EXPORT_TRANSFORM(run) HK_EXPORT_RUN(transform, hk_verdict, run)

// Decides whether there is a delivery: `hk_decision filter(const hk_context *context)`. A plugin may
// have one of the two, or both.
#define HK_EXPORT_FILTER(run) HK_EXPORT_RUN(filter, hk_decision, run)

// The layouts that the router expects.
_Static_assert(sizeof(hk_attributes) == 80, "the layout of `attributes`");
_Static_assert(sizeof(hk_edit) == 20, "the layout of `edit`");
_Static_assert(sizeof(hk_output) == 28, "the layout of `output`");
_Static_assert(sizeof(hk_verdict) == 32, "the layout of `verdict`");
_Static_assert(sizeof(hk_decision) == 28, "the layout of `decision`");
_Static_assert(sizeof(hk_manifest) == 48, "the layout of `manifest`");
_Static_assert(sizeof(hk_configured) == 12, "the layout of `result`");
