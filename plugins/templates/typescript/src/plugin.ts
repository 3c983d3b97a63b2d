// Delivers orders that are worth the trouble, without the note that is for us alone.
import { get } from "hookyard:plugin/event@1.0.0";
import { log } from "hookyard:plugin/log@1.0.0";
import type { Edit, Lifecycle, Transform } from "hookyard:plugin/types@1.0.0";
import { Failure, orFail } from "./failure.js";
import { valueAt } from "./json.js";

const schema = {
  type: "object",
  properties: {
    minimum: { type: "number", description: "The smallest amount that is delivered" },
  },
  required: ["minimum"],
  additionalProperties: false,
};

// Set by `configure`. Each run has an instance of its own, so it is this step's and nobody else's.
let config: { minimum: number };

export const lifecycle: Lifecycle = {
  describe() {
    return {
      name: "{{name}}",
      version: "0.1.0",
      summary: "Drops small orders and takes the internal note out of the others",
      configSchema: JSON.stringify(schema),
    };
  },

  configure(json) {
    config = JSON.parse(json);
  },
};

export const transform: Transform = {
  transform: orFail(() => {
    const amount = valueAt("/amount");
    if (typeof amount !== "number") {
      throw new Failure("no-amount", "the event's data have no number at `/amount`");
    }
    if (amount < config.minimum) return { tag: "drop", val: { code: "too-small" } };

    log("info", `an order of ${amount}`);
    const edits: Edit[] = [];
    if (get("/internal_note") != null) edits.push({ pointer: "/internal_note" });
    return {
      tag: "replace",
      val: { set: [["checkedby", "{{name}}"]], unset: [], data: { tag: "edits", val: edits } },
    };
  }),
};
