// What a script finds in its world. There is no clock and there are no random numbers: what comes out of
// a run depends on the event, the configuration and the code alone.

import { log as write } from "hookyard:plugin/log@1.0.0";

const { Error, Reflect, String, TypeError, Date: NativeDate } = globalThis;
const { parse, stringify } = JSON;
const { defineProperty, entries, fromEntries } = Object;

/** When the event was accepted; none outside of `filter` and `transform`. */
let receivedMs;
/** The name of the function below that made the last answer of this call. */
let made;

/** Begins a call of the script. */
export function begin(context) {
  receivedMs = context.receivedMs;
  made = undefined;
}

export const lastMade = () => made;

/** A value as text for a person. */
export function show(value) {
  if (typeof value === "string") return value;
  return (value instanceof Error ? undefined : stringify(value)) ?? String(value);
}

/** JSON text that is taken as it is: the value of an edit, or `data`. */
export class Raw {
  constructor(text) {
    parse(text);
    this.text = text;
  }
  toJSON() {
    throw new TypeError("what `raw` makes is a whole value and cannot be inside another one");
  }
}

function now() {
  if (receivedMs !== undefined) return receivedMs;
  throw new Error("the only time is that of an event: ask for it inside `filter` or `transform`");
}

/** `Date`. Its present is the time at which the event was accepted. */
function Present(...parts) {
  if (!new.target) return new NativeDate(now()).toString();
  return Reflect.construct(NativeDate, parts.length === 0 ? [now()] : parts, new.target);
}

function random() {
  throw new Error("there are no random numbers, so that a run can be repeated; use the event's id");
}

const line = (level) => (...values) => write(level, values.map(show).join(" ").toWellFormed());

/** `log.info("…", value)`: a line in the log of the run. There are 20 of them, and 4 KiB in all. */
const log = fromEntries(["trace", "debug", "info", "warn", "error"].map((it) => [it, line(it)]));

function answer(kind, value) {
  made = kind;
  return { [kind]: value };
}

function define(object, members) {
  for (const [name, value] of entries(members)) {
    defineProperty(object, name, { value, writable: true, configurable: true });
  }
}

defineProperty(Present, "name", { value: "Date" });
defineProperty(Present, "length", { value: 7 });
Present.prototype = NativeDate.prototype;
Present.prototype.constructor = Present;
define(Present, { now, parse: NativeDate.parse, UTC: NativeDate.UTC });
define(Math, { random });
// These ask WASI for the time, or serve what is not in plugin.wit.
for (const name of ["performance", "wit", "__cqjs"]) delete globalThis[name];

define(globalThis, {
  Date: Present,
  log,
  console: { ...log, log: log.info },
  /** JSON text as the value of an edit or as `data`, without reading it: every digit stays. */
  raw: (text) => new Raw(text),
  /** The subscription does not get the event: a decision, shown under `code`. */
  drop: (code, detail) => answer("drop", { code, detail }),
  /** The event cannot be handled: its delivery fails under `code`. */
  fail: (code, detail) => answer("fail", { code, detail }),
  /** The event changes: `{set, unset}`, and one of `edits`, `data`, `text` and `bytes`. */
  replace: (change) => answer("replace", change),
  /** The event becomes several, one for each change in the array. */
  split: (changes) => answer("split", changes),
});
