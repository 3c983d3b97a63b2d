// The contract between Hookyard and a plugin (`wit/plugin.wit`) as TypeScript sees it.
//
// What is optional is `null` in one engine and `undefined` in the other when it is not there: compare with
// `== null`, or use `??` and `?.`. What a plugin answers may leave it out.

/** Plain data. Import it with `import type`: there is nothing of it at run time. */
declare module "hookyard:plugin/types@1.0.0" {
  type Optional<T> = T | null | undefined;

  /** The CloudEvents context attributes, in their canonical string form. */
  export interface Attributes {
    id: string;
    source: string;
    type: string;
    subject: Optional<string>;
    time: Optional<string>;
    datacontenttype: Optional<string>;
    dataschema: Optional<string>;
    /** Names and values of the attributes that are not of the specification. */
    extensions: [name: string, value: string][];
  }

  /** Where and for whom this run happens. Nothing in it differs between two attempts of one delivery. */
  export interface CallContext {
    /** The id of the subscription. */
    subscription: string;
    /** The format in which it is delivered, such as `cloudevents`. */
    format: string;
    locale: Optional<string>;
    /**
     * When the event was accepted, in milliseconds since the Unix epoch: the only clock there is. A
     * `number` in QuickJS and a `bigint` in StarlingMonkey; `Number(…)` makes it the same in both.
     */
    receivedMs: number | bigint;
  }

  /** Why: shown with the delivery. */
  export interface Reason {
    /** Short and stable, since people search by it. */
    code: string;
    /** For reading. */
    detail?: Optional<string>;
  }

  /** One change of an event's data. */
  export interface Edit {
    /** A JSON Pointer (RFC 6901) into the data. */
    pointer: string;
    /** Raw JSON text, as of `JSON.stringify`. Left out, what is at the pointer is removed. */
    value?: Optional<string>;
  }

  /** What becomes of the data. Prefer edits: every byte that they do not touch stays as it was. */
  export type NewData =
    | { tag: "same" }
    | { tag: "edits"; val: Edit[] }
    | { tag: "bytes"; val: Uint8Array }
    | { tag: "text"; val: string };

  /** What an event becomes. */
  export interface Output {
    /** CloudEvents attributes to set: names and values. */
    set: [name: string, value: string][];
    /** The names of optional CloudEvents attributes to take away. */
    unset: string[];
    data: NewData;
  }

  /** What a filter says of an event. */
  export type Decision = { tag: "accept" } | { tag: "reject"; val?: Optional<Reason> };

  /** What a transform makes of an event. */
  export type Verdict =
    /** It goes on as it is. */
    | { tag: "pass" }
    /** It goes on changed. */
    | { tag: "replace"; val: Output }
    /** It goes on as several, 64 at most. */
    | { tag: "split"; val: Output[] }
    /** The subscription does not get it: a decision, and shown as one. */
    | { tag: "drop"; val?: Optional<Reason> }
    /** It cannot be handled: the delivery is shown as failed. */
    | { tag: "fail"; val: Reason };

  /** What a plugin says of itself when it is uploaded. */
  export interface Manifest {
    name: string;
    version: string;
    /** One line. */
    summary: string;
    /**
     * JSON Schema (2020-12) of the configuration, as JSON text. Left out, there is nothing to configure.
     */
    configSchema?: Optional<string>;
    /** The JSON Pointers that the plugin reads. When given, it can read nothing else. */
    reads?: Optional<string[]>;
  }

  /** To be exported as `lifecycle` by each plugin. */
  export interface Lifecycle {
    describe(): Manifest;
    /**
     * Takes the configuration of the step: JSON text that already fits `configSchema`. Called once
     * before a run.
     *
     * @throws {string} why the configuration cannot be used. It has to be a `string`, not an `Error`.
     */
    configure(config: string): void;
  }

  /** To be exported as `filter` by a plugin of the world `filter-plugin` or `plugin`. */
  export interface Filter {
    filter(context: CallContext): Decision;
  }

  /** To be exported as `transform` by a plugin of the world `transform-plugin` or `plugin`. */
  export interface Transform {
    transform(context: CallContext): Verdict;
  }
}

/** The event that this run is about. It stays in the router; a plugin asks for what it reads. */
declare module "hookyard:plugin/event@1.0.0" {
  import type { Attributes } from "hookyard:plugin/types@1.0.0";

  /** All the CloudEvents attributes. */
  export function allAttributes(): Attributes;
  /** One CloudEvents attribute by its name, extensions included. */
  export function attribute(name: string): string | null | undefined;
  /**
   * The raw JSON text of the value at a JSON Pointer, in UTF-8; nothing where there is no such value.
   * `valueAt` in `src/json.ts` makes a value of it.
   */
  export function get(pointer: string): Uint8Array | null | undefined;
  /** The values at several pointers, for the price of one call. */
  export function getMany(pointers: string[]): (Uint8Array | null | undefined)[];
  /** The length of the data in bytes. */
  export function size(): number;
  /** The whole data as they came. */
  export function data(): Uint8Array;
  /** The whole data as text; nothing where they are not UTF-8. */
  export function text(): string | null | undefined;
  /**
   * The alternate id of this kind of the profile that the event is about, as it was when the event was
   * accepted.
   */
  export function alternateId(kind: string): string | null | undefined;
}

/** The plugin's log, which its owner can read. */
declare module "hookyard:plugin/log@1.0.0" {
  export type Level = "trace" | "debug" | "info" | "warn" | "error";

  /** Writes a line. 20 lines and 4 KiB of them a run are kept. */
  export function log(level: Level, message: string): void;
}
