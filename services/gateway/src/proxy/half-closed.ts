import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** A client that has gone is noticed by the second probe, if the reset that the first one provoked is back by then: milliseconds, growing fourfold. */
const firstProbeMs = 10
const probeEveryMs = 1000

/**
 * Answers clients that end their side of the connection behind their request and read on, which Node by itself does not.
 *
 * A client that has gone ends it in the same way, and only what is written to it brings the news, as a reset. So until the answer begins it
 * is told `100 Continue`, which every client of HTTP/1.1 reads over (RFC 9110 section 15.2). Whoever ends its side in the middle of an
 * answer has left.
 */
export function answerHalfClosed (server: Server): void {
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true
  server.on('connection', (socket: Socket) => { socket.on('end', onEnd) })
}

function onEnd (this: Socket): void {
  const answer = (this as Socket & { _httpMessage?: ServerResponse | null })._httpMessage
  if (answer == null || answer.writableEnded || !this.writable) return
  // HTTP/1.0 knows no interim answers, so there its end is taken for its leave, as Node does.
  if (answer.headersSent || answer.req.httpVersionMinor === 0) {
    this.destroy()
    return
  }
  let delayMs = firstProbeMs
  let timer: NodeJS.Timeout | undefined
  const probe = (): void => {
    if (answer.headersSent) return
    answer.writeContinue()
    timer = setTimeout(probe, delayMs)
    delayMs = Math.min(delayMs * 4, probeEveryMs)
  }
  this.once('close', () => { clearTimeout(timer) })
  probe()
}
