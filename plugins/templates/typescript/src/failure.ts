import { log } from "hookyard:plugin/log@1.0.0";
import type { CallContext, Verdict } from "hookyard:plugin/types@1.0.0";

/** To be thrown where an event cannot be handled: the delivery is shown as failed, under `code`. */
export class Failure extends Error {
  readonly code: string;

  /** `code` is short and stable, since people search by it; `detail` is for reading. */
  constructor(code: string, detail: string) {
    super(detail);
    this.code = code;
  }
}

/**
 * Makes whatever is thrown the verdict `fail`. Of an exception that gets past a plugin, the router learns
 * only that the plugin trapped: neither its words nor its place.
 */
export function orFail(
  transform: (context: CallContext) => Verdict,
): (context: CallContext) => Verdict {
  return (context) => {
    try {
      return transform(context);
    } catch (err) {
      if (err instanceof Failure) {
        return { tag: "fail", val: { code: err.code, detail: err.message } };
      }
      // Nobody expected this one, so its place matters.
      log("error", err instanceof Error ? `${err}\n${err.stack}` : String(err));
      return { tag: "fail", val: { code: "exception", detail: String(err) } };
    }
  };
}
