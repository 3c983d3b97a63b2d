// Makes one core module of the component that componentize-qjs writes: node link.mjs COMPONENT OUT
//
// That component is a nest of small ones around three modules: `main` has the memory and the table as
// they are after plugin.js was evaluated, `engine` is QuickJS, and `bindings` translates between it and
// plugin.wit. Components in components need an adapter for each call between them, and no image of a
// configured instance can be made of such a nest. One module needs neither and starts faster; the router
// makes a component of it, as of any core module.
//
// WASI ends here: what the engine imports of it becomes a trap, and plugin.js takes away what would get
// there. The names that connect the modules are those that the linker of `wit-component` gives them.

import { readFileSync, writeFileSync } from "node:fs";

const [FUNCTION, MEMORY, GLOBAL] = [0, 2, 3];
const END = 0x0b;
const ENGINE = "componentize_qjs_runtime.wasm";
const BINDINGS = "wit-dylib.wasm";
/** Resets a part of WASI that is not there any more. It is called all the time, so it does not trap. */
const IDLE = "reset_adapter_state";

class Reader {
  constructor(bytes, at = 0) {
    Object.assign(this, { bytes, at });
  }
  get more() {
    return this.at < this.bytes.length;
  }
  byte() {
    return this.bytes[this.at++];
  }
  /** A number of at most 32 bits in LEB128. */
  number(signed = false) {
    let [value, shift, byte] = [0, 0];
    do {
      byte = this.byte();
      value |= (byte & 0x7f) << shift;
      shift += 7;
    } while (byte & 0x80);
    if (signed) return shift < 32 && byte & 0x40 ? value | (-1 << shift) : value;
    return value >>> 0;
  }
  take(length = this.number()) {
    return this.bytes.subarray(this.at, (this.at += length));
  }
  text() {
    return this.take().toString();
  }
  list(item) {
    return Array.from({ length: this.number() }, item);
  }
  /** The bytes that `read` goes over. */
  span(read) {
    const start = this.at;
    read();
    return this.bytes.subarray(start, this.at);
  }
}

const number = (value) => {
  const bytes = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
};
const constant = (value) => {
  const bytes = [0x41];
  for (; value > 0x3f || value < -0x40; value >>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value & 0x7f, END];
};
const join = (...parts) => Buffer.concat(parts.map((it) => Buffer.from(it)));
const sized = (bytes) => join(number(bytes.length), bytes);
const text = (string) => sized(Buffer.from(string));
const list = (items) => join(number(items.length), ...items);
const section = (id, items) => join([id], sized(list(items)));

/** The core modules of a component and of the components in it. */
function coreModules(component) {
  const it = new Reader(component, 8);
  const found = [];
  while (it.more) {
    const [id, content] = [it.byte(), it.take()];
    if (id === 1) found.push(new Module(content));
    if (id === 4) found.push(...coreModules(content));
  }
  return found;
}

/** A core module, each part of which is read when it is asked for. */
class Module {
  constructor(bytes) {
    const it = new Reader(bytes, 8);
    this.sections = new Map();
    while (it.more) this.sections.set(it.byte(), it.take());
    this.exports = new Map(this.#items(7, (it) => [it.text(), [it.byte(), it.number()][1]]));
  }
  #items(id, item) {
    const it = new Reader(this.sections.get(id) ?? [0]);
    return it.list(() => item(it));
  }
  get types() {
    return this.#items(1, (it) => it.span(() => [it.byte(), it.take(), it.take()]));
  }
  get imports() {
    const type = [(it) => it.number(), table, limits, (it) => it.take(2)];
    return this.#items(2, (it) => {
      const [from, name, kind] = [it.text(), it.text(), it.byte()];
      return { from, name, kind, type: type[kind](it) };
    });
  }
  get functions() {
    return this.#items(3, (it) => it.number());
  }
  get tables() {
    return this.#items(4, (it) => it.span(() => table(it)));
  }
  get memories() {
    return this.#items(5, (it) => it.span(() => limits(it)));
  }
  get globals() {
    return this.#items(6, (it) => ({ type: it.take(2), begins: expression(it) }));
  }
  get elements() {
    return this.#items(9, (it) => {
      const isLong = active(it, 2);
      if (isLong) it.number(); // the table, of which there is one
      const offset = expression(it);
      if (isLong) it.byte(); // the kind, of which there is one
      return { offset, functions: it.list(() => it.number()) };
    });
  }
  get codes() {
    return this.#items(10, (it) => it.take());
  }
  get data() {
    return this.#items(11, (it) => ({ offset: !active(it) && expression(it), bytes: it.take() }));
  }
}

const unknown = (what, number) => new Error(`${what} that are not known here: ${number}`);
const limits = (it) => (it.byte() & 1 ? [it.number(), it.number()] : [it.number()]);
const table = (it) => [it.byte(), limits(it)];
const expression = (it) =>
  it.span(() => {
    for (let op = it.byte(); op !== END; op = it.byte()) if (op < 0x45) it.number();
  });
/** Whether a segment, which has to be an active one, is written in the longer way. */
const active = (it, longer) => {
  const flags = it.number();
  if (flags !== 0 && flags !== longer) throw unknown("flags of a segment", flags);
  return flags === longer;
};

/** The body of a function, with other numbers for the types, functions and globals that it names. */
function renumbered(body, { types, functions, globals }) {
  const it = new Reader(body);
  const out = [];
  const copy = () => { do out.push(it.byte()); while (out.at(-1) & 0x80); };
  const copied = (count) => out.push(...it.take(count));
  const as = (numbers) => out.push(...number(numbers[it.number()]));
  const repeat = (read) => {
    const count = it.number();
    out.push(...number(count));
    for (let left = count; left > 0; left--) read();
  };
  repeat(() => [copy(), copied(1)]); // the local variables
  while (it.more) {
    const op = it.byte();
    out.push(op);
    if (op <= 0x01 || op === 0x05 || op === END || op === 0x0f || op === 0x1a || op === 0x1b) continue;
    if (op <= 0x04 && it.bytes[it.at] >= 0x40) copied(1); // block, loop, if: of one value or none
    else if (op === 0x0c || op === 0x0d) copy(); // br, br_if
    else if (op === 0x0e) repeat(copy), copy(); // br_table
    else if (op === 0x10) as(functions); // call
    else if (op === 0x11) as(types), copy(); // call_indirect
    else if (op >= 0x20 && op <= 0x22) copy(); // local.…
    else if (op === 0x23 || op === 0x24) as(globals); // global.…
    else if (op >= 0x28 && op <= 0x3e) copy(), copy(); // loads and stores
    else if (op >= 0x3f && op <= 0x42) copy(); // memory.size, memory.grow, i32.const, i64.const
    else if (op === 0x43 || op === 0x44) copied(op === 0x43 ? 4 : 8); // f32.const, f64.const
    else if (op === 0xfc && it.bytes[it.at] <= 7) copy(); // …trunc_sat…
    else if (op === 0xfc && it.bytes[it.at] === 10) copied(3); // memory.copy
    else if (op === 0xfc && it.bytes[it.at] === 11) copied(2); // memory.fill
    else if (op < 0x45 || op > 0xc4) throw unknown("instructions", op);
  }
  return out;
}

const found = (value, what) => {
  if (value !== undefined) return value;
  throw new Error(`there is no ${what}; is this a component of componentize-qjs 0.4.5?`);
};

function link(component) {
  const modules = coreModules(component);
  const exporter = (name) => found(modules.find((it) => it.exports.has(name)), `module with ${name}`);
  const main = exporter("__indirect_function_table");
  const engine = exporter("wit_dylib_initialize");
  const bindings = exporter("hookyard:plugin/lifecycle@1.0.0#describe");

  const out = { types: [], imports: [], functions: [], codes: [], globals: [], elements: [] };
  const add = (items, item) => items.push(item) - 1;

  /** What each global begins as. */
  const begins = [];
  const value = (expression, globals) => {
    const it = new Reader(expression);
    const stack = [];
    for (let op = it.byte(); op !== END; op = it.byte()) {
      if (op === 0x41) stack.push(it.number(true)); // i32.const
      else if (op === 0x23) stack.push(begins[globals[it.number()]]); // global.get
      else if (op === 0x6a) stack.push((stack.pop() + stack.pop()) | 0); // i32.add
      else throw unknown("instructions of a constant", op);
    }
    return stack.pop();
  };
  const addGlobals = (module, globals) => {
    for (const { type, begins: expression } of module.globals) {
      begins.push(value(expression, globals));
      globals.push(add(out.globals, join(type, constant(begins.at(-1)))));
    }
    return globals;
  };
  addGlobals(main, []);
  const ofMain = (name) => found(main.exports.get(name), name);
  const global = (library, { from, name }) => {
    if (from === "GOT.func") return ofMain(`${ENGINE}:${name}`);
    return ofMain(name.endsWith("_base") && from === "env" ? `${library}:${name.slice(2)}` : name);
  };

  /** What `bindings` asks of the router is all that the module imports, and so comes first. */
  const isRouters = ({ from, kind }) => kind === FUNCTION && from !== "env";
  const imported = bindings.imports.filter(isRouters).length;
  const addFunction = (type, code) => {
    out.codes.push(sized(code));
    return imported + add(out.functions, number(type));
  };
  const addModule = (module, library, functionOf) => {
    const of = (kind) => module.imports.filter((it) => it.kind === kind);
    const types = module.types.map((it) => add(out.types, it));
    const globals = addGlobals(module, of(GLOBAL).map((it) => global(library, it)));
    const codes = module.codes;
    const functions = of(FUNCTION).map((it) => functionOf(it, types[it.type]));
    const first = imported + out.functions.length;
    functions.push(...module.functions.map((_, at) => first + at));
    const maps = { types, globals, functions };
    module.functions.forEach((type, at) => addFunction(types[type], renumbered(codes[at], maps)));
    for (const it of module.elements) {
      const numbers = it.functions.map((at) => number(functions[at]));
      out.elements.push(join([0], constant(value(it.offset, globals)), list(numbers)));
    }
    return (name) => functions[found(module.exports.get(name), name)];
  };
  const [trap, nothing] = [[0, 0x00, END], [0, END]];
  const ofEngine = addModule(engine, ENGINE, ({ name }, type) => {
    return addFunction(type, name === IDLE ? nothing : trap);
  });
  const ofBindings = addModule(bindings, BINDINGS, (it, type) => {
    if (!isRouters(it)) return ofEngine(it.name);
    return add(out.imports, join(text(it.from), text(it.name), [FUNCTION], number(type)));
  });
  // A function whose address the engine knows by a global, and so by its place in the table.
  for (const { name } of engine.imports.filter((it) => it.from === "GOT.func")) {
    const place = begins[ofMain(`${ENGINE}:${name}`)];
    out.elements.push(join([0], constant(place), list([number(ofEngine(name))])));
  }

  // All memory is in `main`: at build time, the others' data were put there.
  const data = main.data.map((it) => join([0], it.offset, sized(it.bytes)));
  const names = [...bindings.exports.keys()].filter((it) => it.includes("#") || it === "cabi_realloc");
  const exports = names.map((it) => join(text(it), [FUNCTION], number(ofBindings(it))));
  exports.push(join(text("memory"), [MEMORY, 0]));
  return join(
    component.subarray(0, 4), [1, 0, 0, 0],
    section(1, out.types), section(2, out.imports), section(3, out.functions),
    section(4, main.tables), section(5, main.memories), section(6, out.globals),
    section(7, exports), section(9, out.elements), section(10, out.codes), section(11, data),
  );
}

const [from, to] = process.argv.slice(2);
writeFileSync(to, link(readFileSync(from)));
