/** A server on this machine for the page, and for the bridge of each window that shows it. */

import { timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Session, SessionOptions } from "@backscroll/desktop";
import { type WebSocket, WebSocketServer } from "ws";

const HOST = "127.0.0.1";
const PAGES = fileURLToPath(new URL("../../web/", import.meta.url));
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
const TYPES: Readonly<Record<string, string>> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const HEADERS = {
  "content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "cache-control": "no-cache",
};

interface Options {
  /** 0 for any free one. */
  port: number;
  /** Who does not know it gets no connection. */
  token: string;
  /** Opens the session of a window that has connected. */
  connect: (send: SessionOptions["send"]) => Pick<Session, "answer" | "close">;
}

/** What a window sends: a request of the bridge, with a number that its answer has too. */
interface FromWindow {
  id: number;
  kind: "command" | "query";
  request: unknown;
}

/** Serve, and return the address to open. */
export async function serve({ port, token, connect }: Options): Promise<string> {
  const server = createServer(sendFile);
  await new Promise<void>((done, fail) => server.once("error", fail).listen(port, HOST, done));
  const origin = `http://${HOST}:${String((server.address() as AddressInfo).port)}`;
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MESSAGE_BYTES_MAX });
  server.on("upgrade", (request, socket, head) => {
    if (!isAdmitted(request, origin, token)) {
      socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n");
      return;
    }
    sockets.handleUpgrade(request, socket, head, (window) => {
      bridge(window, connect);
    });
  });
  return `${origin}/#token=${token}`;
}

/** Only the page of this server, in a browser that has the address with the token: no other page may connect. */
function isAdmitted({ url = "", headers }: IncomingMessage, origin: string, token: string): boolean {
  const { pathname, searchParams } = new URL(url, origin);
  const given = Buffer.from(searchParams.get("token") ?? "");
  const expected = Buffer.from(token);
  return (
    pathname === "/bridge" &&
    headers.origin === origin &&
    headers.host === new URL(origin).host &&
    given.length === expected.length &&
    timingSafeEqual(given, expected)
  );
}

/** Carry the requests of a window to its session, the envelopes back, and the session's events. */
function bridge(window: WebSocket, connect: Options["connect"]): void {
  // The promise is fulfilled when it was handed to the system, so that nothing piles up for a window that does not read.
  const send = (message: object): Promise<void> =>
    new Promise((sent, lost) => {
      window.send(JSON.stringify(message), (error) => {
        if (error == null) sent();
        else lost(error);
      });
    });
  const session = connect((event) => send({ event }));
  window.on("message", (data: Buffer) => {
    let message: FromWindow;
    try {
      message = JSON.parse(data.toString()) as FromWindow;
    } catch {
      window.terminate(); // it is not our page
      return;
    }
    const { id, kind, request } = message;
    void session
      .answer(kind, request)
      .then((envelope) => send({ id, envelope }))
      .catch(() => undefined); // the window is gone
  });
  window.on("error", () => {
    window.terminate();
  });
  window.on("close", () => void session.close());
}

const sendFile: RequestListener = (request, response) => {
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  const name = pathname === "/" ? "index.html" : pathname;
  const type = TYPES[extname(name)];
  // A URL has no `..` left, and its other names cannot lead out of the folder.
  readFile(join(PAGES, name)).then(
    (content) =>
      response.writeHead(200, { ...HEADERS, "content-type": type ?? "application/octet-stream" }).end(content),
    () => response.writeHead(404).end(),
  );
};
