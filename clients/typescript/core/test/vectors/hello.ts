/** `hello.json`: the proof that the daemon must have sent. */

import { proofOf } from "../../src/address.js";
import { difference, type Vector } from "./files.js";

export interface HelloVector extends Vector {
  token: string;
  nonce: string;
  endpoints: string[];
  proof: string;
}

export function playHello({ token, nonce, endpoints, proof }: HelloVector): string {
  return difference("proof", proof, proofOf(token, nonce, endpoints));
}
