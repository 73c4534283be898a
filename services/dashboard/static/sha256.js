// SHA-256 (FIPS 180-4) of files of any size, piece by piece: the browser's own takes only what fits into memory, and
// nothing at all on pages without HTTPS.
"use strict";
const Sha256 = (() => {
  const PIECE = 4 * 1024 * 1024;  // bytes between two chances for the page to do something else

  // The first 32 bits of the fractional parts of a root of the first primes.
  function constants(count, root) {
    const found = [];
    for (let n = 2; found.length < count; n++) {
      let isPrime = true;
      for (let d = 2; d * d <= n; d++) if (n % d === 0) { isPrime = false; break; }
      if (isPrime) found.push((root(n) % 1) * 2 ** 32 | 0);
    }
    return Int32Array.from(found);
  }
  const K = constants(64, Math.cbrt), START = constants(8, Math.sqrt);

  class Digest {
    constructor() {
      this.state = Int32Array.from(START);
      this.words = new Int32Array(64);
      this.rest = new Uint8Array(64);
      this.filled = 0;
      this.length = 0;
    }

    update(bytes) {
      this.length += bytes.length;
      let at = 0;
      if (this.filled) {
        at = Math.min(64 - this.filled, bytes.length);
        this.rest.set(bytes.subarray(0, at), this.filled);
        this.filled += at;
        if (this.filled < 64) return;
        this.block(this.rest, 0);
        this.filled = 0;
      }
      for (; at + 64 <= bytes.length; at += 64) this.block(bytes, at);
      this.rest.set(bytes.subarray(at), 0);
      this.filled = bytes.length - at;
    }

    block(bytes, at) {
      const w = this.words, s = this.state;
      for (let i = 0; i < 16; i++, at += 4) {
        w[i] = bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
      }
      for (let i = 16; i < 64; i++) {
        const x = w[i - 15], y = w[i - 2];
        const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
        const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1 | 0;
      }
      let a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
      for (let i = 0; i < 64; i++) {
        const e1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
        const t1 = h + e1 + (e & f ^ ~e & g) + K[i] + w[i] | 0;
        const a0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
        const t2 = a0 + (a & b ^ a & c ^ b & c) | 0;
        h = g; g = f; f = e; e = d + t1 | 0; d = c; c = b; b = a; a = t1 + t2 | 0;
      }
      s[0] += a; s[1] += b; s[2] += c; s[3] += d; s[4] += e; s[5] += f; s[6] += g; s[7] += h;
    }

    hex() {
      const bits = this.length * 8, end = new Uint8Array(this.filled < 56 ? 64 - this.filled : 128 - this.filled);
      end[0] = 0x80;
      const view = new DataView(end.buffer);
      view.setUint32(end.length - 8, Math.floor(bits / 2 ** 32));
      view.setUint32(end.length - 4, bits >>> 0);
      this.update(end);
      return [...this.state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
    }
  }

  // Of a Blob, hex. `seen` is told the bytes that were read; `signal` stops it.
  async function of(blob, seen = () => {}, signal = null) {
    const digest = new Digest();
    for (let at = 0; at < blob.size; at += PIECE) {
      signal?.throwIfAborted();
      digest.update(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()));
      seen(Math.min(at + PIECE, blob.size));
    }
    return digest.hex();
  }

  return { of };
})();
