import { get } from "hookyard:plugin/event@1.0.0";

/**
 * The value at a JSON Pointer into the event's data; `undefined` where there is none.
 *
 * Numbers beyond 2⁵³ lose digits, as they do in all of JavaScript. Edits leave them alone.
 */
export function valueAt(pointer: string): unknown {
  const bytes = get(pointer);
  return bytes == null ? undefined : JSON.parse(utf8(bytes));
}

/**
 * Decodes UTF-8, for which QuickJS has no `TextDecoder`. Meant for single values: `text()` of
 * `hookyard:plugin/event@1.0.0` has the whole data decoded by the router, many times faster.
 */
export function utf8(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at++]!;
    const more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    let code = more === 0 ? first : first & (0x3f >> more);
    for (const end = at + more; at < end; ) code = (code << 6) | (bytes[at++]! & 0x3f);
    text += String.fromCodePoint(code);
  }
  return text;
}
