// What a script answers, made into what plugin.wit has for it. A boundary: what is not understood is not
// guessed at, and the text says what would be right.

import { event, isJson } from "./event.js";
import { lastMade, Raw, show } from "./globals.js";

const { Error, String, Uint8Array } = globalThis;
const { stringify } = JSON;
const { entries, hasOwn, keys } = Object;
const { isArray } = Array;

/** An answer that is none; its message says why. */
export class BadAnswer extends Error {}

function wrong(message) {
  throw new BadAnswer(message);
}

const isObject = (it) => typeof it === "object" && it !== null && !isArray(it);
const isText = (it) => typeof it === "string";
const quoted = (names) => names.map((it) => `\`${it}\``).join(", ");

function checkMembers(what, value, known) {
  if (!isObject(value)) wrong(`${what} takes an object with ${quoted(known)}`);
  for (const it of keys(value)) {
    if (!known.includes(it)) wrong(`${what} has no member \`${it}\`, but ${quoted(known)}`);
  }
}

/** What a wrong answer is, in a few words. */
function kindOf(it) {
  if (isArray(it)) return "an array";
  if (!isObject(it)) return show(it).slice(0, 80);
  if (typeof it.then === "function") {
    return "a promise; there is nothing to wait for, so leave out `async`";
  }
  return `an object with ${quoted(keys(it)) || "nothing in it"}`;
}

const REASON = ["code", "detail"];

function toReason(what, value) {
  checkMembers(what, value, REASON);
  const { code, detail } = value;
  if (!isText(code) || code === "") wrong(`${what} takes a code, a short text such as "too-small"`);
  if (!isText(detail ?? "")) wrong(`${what} takes a detail that is a text`);
  return { code: code.toWellFormed(), detail: detail?.toWellFormed() ?? null };
}

/** Half of a surrogate pair, which a cut through a string leaves, is no JSON for the router. */
function withoutHalves(json) {
  if (!json.includes("\\ud")) return json;
  return json.replace(/\\(?:ud[89a-f][0-9a-f]{2}|[^])/g, (it) => (it.length === 6 ? "\ufffd" : it));
}

function toJson(what, value) {
  if (value instanceof Raw) return value.text;
  let text;
  let trouble = `it is ${typeof value}`;
  try {
    text = stringify(value);
  } catch (err) {
    trouble = show(err);
  }
  return text === undefined ? wrong(`${what} cannot be JSON: ${trouble}`) : withoutHalves(text);
}

/** The ways to give new data, by the member of a change. */
const newData = {
  edits(edits, what) {
    if (!isObject(edits)) wrong(`${what} takes as \`edits\` JSON Pointers and their new values`);
    const edit = ([name, value]) => {
      const pointer = name.toWellFormed();
      if (name !== "" && name[0] !== "/") wrong(`${what}: \`${name}\` is not a JSON Pointer`);
      if (value === undefined) return { pointer, value: null };
      return { pointer, value: toJson(`${what}: \`${name}\``, value) };
    };
    return { tag: "edits", val: entries(edits).map(edit) };
  },
  data(value, what, { set = {}, unset = [] }) {
    const before = unset.includes("datacontenttype") ? undefined : event.datacontenttype;
    const mediaType = set.datacontenttype ?? before;
    const cure = "give `text`, or set `datacontenttype` as well";
    if (!isJson(mediaType)) wrong(`${what}: \`data\` are JSON and not \`${mediaType}\`: ${cure}`);
    return { tag: "text", val: toJson(`${what}: \`data\``, value) };
  },
  text(value, what) {
    if (!isText(value)) wrong(`${what} takes as \`text\` a text`);
    return { tag: "text", val: value.toWellFormed() };
  },
  bytes(value, what) {
    if (!(value instanceof Uint8Array)) wrong(`${what} takes as \`bytes\` a Uint8Array`);
    return { tag: "bytes", val: value };
  },
};

const CHANGE = ["set", "unset", ...keys(newData)];

function toOutput(what, change) {
  checkMembers(what, change, CHANGE);
  const { set = {}, unset = [] } = change;
  if (!isObject(set)) wrong(`${what} takes as \`set\` attributes and their new values`);
  if (!isArray(unset) || !unset.every(isText)) wrong(`${what} takes as \`unset\` an array of names`);
  const attribute = ([name, value]) => {
    if (["string", "number", "boolean"].includes(typeof value)) {
      return [name.toWellFormed(), String(value).toWellFormed()];
    }
    return wrong(`${what}: the attribute \`${name}\` is a text, a number or a boolean`);
  };
  const [kind, ...more] = keys(change).filter((it) => hasOwn(newData, it));
  if (more.length > 0) wrong(`${what} takes one of ${quoted([kind, ...more])}`);
  return {
    set: entries(set).map(attribute),
    unset: unset.map((it) => it.toWellFormed()),
    data: kind ? newData[kind](change[kind], what, change) : { tag: "same" },
  };
}

const verdicts = {
  drop: (it) => ({ tag: "drop", val: toReason("`drop`", it) }),
  fail: (it) => ({ tag: "fail", val: toReason("`fail`", it) }),
  replace: (it) => ({ tag: "replace", val: toOutput("`replace`", it) }),
  split(parts) {
    if (!isArray(parts) || parts.length === 0) wrong("`split` takes an array of changes, one a part");
    const part = (it, at) => toOutput(`part ${at + 1} of \`split\``, it);
    return { tag: "split", val: parts.map(part) };
  },
};

function toVerdict(it, kinds, cure) {
  const [kind, ...more] = isObject(it) ? keys(it) : [];
  if (!kinds.includes(kind) || more.length > 0) wrong(`${cure}; this was ${kindOf(it)}`);
  return verdicts[kind](it[kind]);
}

const FILTER = ["drop", "fail"];
const FILTER_ANSWERS = "`filter` answers `true`, `false`, `{reject: \"code\"}` or `fail(\"code\")`";
const TRANSFORM = keys(verdicts);
const TRANSFORM_ANSWERS =
  "`transform` answers nothing or `true` for an event that stays as it is, and otherwise what " +
  "`drop`, `fail`, `replace` or `split` makes";

/** What `filter` answered, as a verdict: pass, drop or fail. */
export function ofFilter(it) {
  if (it === true) return { tag: "pass" };
  if (it === false) return { tag: "drop", val: null };
  if (isObject(it) && isText(it.reject)) return verdicts.drop({ code: it.reject });
  if (isObject(it) && isObject(it.reject)) return verdicts.drop(it.reject);
  return toVerdict(it, FILTER, FILTER_ANSWERS);
}

/** What `transform` answered, as a verdict. */
export function ofTransform(it) {
  if (it === true) return { tag: "pass" };
  if (it !== undefined) return toVerdict(it, TRANSFORM, TRANSFORM_ANSWERS);
  const made = lastMade();
  if (made) wrong(`\`transform\` made an answer with \`${made}\` and did not return it`);
  return { tag: "pass" };
}
