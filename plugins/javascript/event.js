// The event that a run is about. It stays in the router: each member asks for what it shows.

import * as host from "hookyard:plugin/event@1.0.0";

const { String, atob, decodeURIComponent, escape } = globalThis;
const { parse } = JSON;
const { toBase64 } = Uint8Array.prototype;

/** Whether data of a media type are JSON; they are where there is none. */
export const isJson = (mediaType) =>
  mediaType === undefined || /^[^;]*[/+]json\s*(;|$)/i.test(mediaType);

/** The text of valid UTF-8. The engine has no function for it, but some that are quick together. */
function utf8(bytes) {
  const text = atob(toBase64.call(bytes));
  return /[\x80-\xff]/.test(text) ? decodeURIComponent(escape(text)) : text;
}

/** A name for the router, which takes no half of a surrogate pair. */
const named = (name) => String(name).toWellFormed();

class Event {
  #data;
  #isRead = false;

  get id() { return this.attribute("id"); }
  get source() { return this.attribute("source"); }
  get type() { return this.attribute("type"); }
  get subject() { return this.attribute("subject"); }
  get time() { return this.attribute("time"); }
  get datacontenttype() { return this.attribute("datacontenttype"); }
  get dataschema() { return this.attribute("dataschema"); }

  /** A CloudEvents attribute by its name, extensions included; `undefined` where there is none. */
  attribute(name) {
    return host.attribute(named(name)) ?? undefined;
  }

  /** The value at a JSON Pointer (RFC 6901) into the data; `undefined` where there is none. */
  get(pointer) {
    const text = this.raw(pointer);
    return text === undefined ? undefined : parse(text);
  }

  /** The JSON text at a pointer, as it came: exact where JavaScript would round a number. */
  raw(pointer) {
    const bytes = host.get(named(pointer));
    return bytes === null ? undefined : utf8(bytes);
  }

  /** The data: the value of JSON, the string of a text, `undefined` of anything else. Read once. */
  get data() {
    if (!this.#isRead) {
      const text = this.text;
      this.#data = text !== undefined && isJson(this.datacontenttype) ? parse(text) : text;
      this.#isRead = true;
    }
    return this.#data;
  }

  /** The data as they came; `undefined` where they are not text. */
  get text() {
    return host.text() ?? undefined;
  }

  /** The data as a `Uint8Array`. */
  get bytes() {
    return host.data();
  }

  /** The length of the data in bytes. */
  get size() {
    return host.size();
  }

  /** The id of this kind of the profile that the event is about; `undefined` where there is none. */
  alternateId(kind) {
    return host.alternateId(named(kind)) ?? undefined;
  }
}

export const event = new Event();
