// The plugin `javascript`: runs a script that it is given as its configuration.
//
// componentize-qjs evaluates these modules when the plugin is built, and the heap that they leave behind
// is the one that each run begins with. A run has a fresh instance: `configure` evaluates the script, then
// `filter` and `transform` call it. A script may break whatever it reaches, which is the global object; so
// the modules take what they need from there beforehand. What a script breaks is whole in the next run.

import { BadAnswer, ofFilter, ofTransform } from "./answers.js";
import { event } from "./event.js";
import { begin, show } from "./globals.js";

const { Number, SyntaxError, TypeError, eval: evaluateGlobally } = globalThis;
const { parse, stringify } = JSON;
const { keys } = Object;
const { isArray } = Array;

/** How long a text about an error may be, in characters. */
const DETAIL_MAX = 1_000;

const MANIFEST = {
  name: "javascript",
  version: "0.1.0",
  summary: "Runs a script in JavaScript, which is its configuration",
  configSchema: stringify({
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    properties: {
      script: {
        description:
          "JavaScript. It defines `filter`, `transform` or both: functions of `event`, `config`, `context`.",
        type: "string",
        minLength: 1,
        maxLength: 65_536,
      },
      config: {
        description: "What the script gets as `config`: any JSON. `{}` where it is left out.",
      },
    },
    required: ["script"],
    additionalProperties: false,
  }),
  reads: null,
};

/** The script: its functions, its manifest and its configuration. */
let script;
/** Why `filter` has no decision. Its type has no place for that, so `transform`, which is next, tells it. */
let failure;

/** Goes behind a script: there, its `const` and `class` are known as well as its functions. */
const RESULT = `
;({
  filter: typeof filter === "undefined" ? undefined : filter,
  transform: typeof transform === "undefined" ? undefined : transform,
  manifest: typeof manifest === "undefined" ? {} : manifest,
})`;
/** What makes a script a module and can be left out: the word before a declaration, or a list of names. */
const EXPORT = /^export(?:(?=\s+(?:async|function|const|let|var|class)\b)|\s*\{[\w$,\s]*\})/gm;
/** What makes a script a module and cannot be left out. */
const MODULE = /^\s*(?:import\b|export\s+default\b)/m;

function evaluate(text) {
  try {
    return evaluateGlobally(text + RESULT);
  } catch (err) {
    const plain = text.replace(EXPORT, (it) => it.replace(/\S/g, " "));
    if (plain === text || !(err instanceof SyntaxError)) throw err;
    return evaluateGlobally(plain + RESULT);
  }
}

function toScript({ filter, transform, manifest }, config) {
  for (const it of [filter, transform]) {
    if (it !== undefined && typeof it !== "function") {
      throw new TypeError("`filter` and `transform` are functions");
    }
  }
  if (!filter && !transform) throw new TypeError("it defines neither `filter` nor `transform`");
  return { filter, transform, config, manifest: toManifest(manifest) };
}

function toManifest({ name = "script", version = "0", summary = "", configSchema, reads, ...rest }) {
  const check = (holds, rule) => {
    if (!holds) throw new TypeError(`\`manifest\`: ${rule}`);
  };
  const isText = (it) => typeof it === "string";
  const members = "`name`, `version`, `summary`, `configSchema` and `reads`";
  check(keys(rest).length === 0, `its members are ${members}, not \`${keys(rest)[0]}\``);
  check([name, version, summary].every(isText), "`name`, `version` and `summary` are texts");
  const isSchema = ["undefined", "object", "boolean"].includes(typeof configSchema);
  check(isSchema, "`configSchema` is a JSON Schema");
  const arePointers = reads === undefined || (isArray(reads) && reads.every(isText));
  check(arePointers, "`reads` is an array of JSON Pointers");
  const schema = stringify(configSchema) ?? null;
  return { name, version, summary, configSchema: schema, reads: reads ?? null };
}

/** Where in the script an error was thrown: the engine calls it `<input>`. */
function place(err) {
  const [, line, column] = /<input>:(\d+):(\d+)/.exec(err?.stack) ?? [];
  return line && { line: Number(line), column: Number(column) };
}

/** What `tell` makes of an error and its place, whatever was thrown. */
function told(err, tell) {
  try {
    return tell(show(err), place(err)).slice(0, DETAIL_MAX).toWellFormed();
  } catch {
    return "something was thrown that cannot be shown";
  }
}

export const lifecycle = {
  /** What the plugin is; once it is configured, what the script is. */
  describe: () => script?.manifest ?? MANIFEST,

  configure(text) {
    const { script: source, config = {} } = parse(text);
    try {
      script = toScript(evaluate(source), config);
    } catch (err) {
      // What is missing at its end is missed behind it, where no author looks.
      const last = source.split("\n").length;
      const isModule = err instanceof SyntaxError && MODULE.test(source);
      const cure = isModule ? "; a script is no module: leave out `import` and `export default`" : "";
      const where = (at) => (at.line > last ? `script:${last}` : `script:${at.line}:${at.column}`);
      throw told(err, (what, at) => {
        return `${at ? where(at) : "script"}: ${what.replace(/^\w*Error: /, "")}${cure}`;
      });
    }
  },
};

/** Calls a function of the script, where it has it, and reads the answer. */
function call(name, read, context) {
  if (!script[name]) return { tag: "pass" };
  try {
    begin(context);
    const locale = context.locale ?? undefined;
    return read(script[name](event, script.config, { ...context, locale }));
  } catch (err) {
    const fail = (code, detail) => ({ tag: "fail", val: { code, detail } });
    if (err instanceof BadAnswer) return fail("bad-answer", told(err.message, (what) => what));
    const where = (at) => (at ? ` (script:${at.line}:${at.column})` : "");
    return fail("exception", told(err, (what, at) => what + where(at)));
  }
}

export const filter = {
  filter(context) {
    const { tag, val } = call("filter", ofFilter, context);
    if (tag === "fail") failure = val;
    return tag === "drop" ? { tag: "reject", val } : { tag: "accept" };
  },
};

export const transform = {
  transform(context) {
    return failure ? { tag: "fail", val: failure } : call("transform", ofTransform, context);
  },
};
