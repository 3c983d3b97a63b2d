// Delivers orders that are worth the trouble, without the note that is for us alone.
#include "hookyard.h"
#include "json.h"

static double minimum;

static hk_manifest describe(void) {
    return (hk_manifest){
        .name = HK("{{name}}"),
        .version = HK("0.1.0"),
        .summary = HK("Drops small orders and takes the internal note out of the others"),
        .config_schema = HK_SOME(HK("{\"type\": \"object\","
                                    " \"properties\": {\"minimum\": {\"type\": \"number\","
                                    "  \"description\": \"The smallest amount that is delivered\"}},"
                                    " \"required\": [\"minimum\"],"
                                    " \"additionalProperties\": false}")),
    };
}

static hk_configured configure(hk_text config) {
    json_maybe_number number = json_number(json_member(config, HK("minimum")).value);
    if (!number.is_some) return HK_REFUSED(HK("`minimum` is not a number"));
    minimum = number.value;
    return HK_CONFIGURED;
}

static hk_verdict transform(const hk_context *) {
    hk_text json = hk_get(HK("/amount")).value;
    json_maybe_number amount = json_number(json);
    if (!amount.is_some) {
        return hk_fail(HK("no-amount"), HK("the event's data have no number at `/amount`"));
    }
    if (amount.value < minimum) return hk_drop(HK("too-small"));

    hk_log(HK_INFO, hk_join(HK("an order of "), json));
    hk_output output = {0};
    if (hk_get(HK("/internal_note")).is_some) hk_remove(&output, HK("/internal_note"));
    hk_set(&output, HK("checkedby"), HK("{{name}}"));
    return hk_replace(output);
}

HK_EXPORT_LIFECYCLE(describe, configure)
HK_EXPORT_TRANSFORM(transform)
