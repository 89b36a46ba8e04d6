import { once } from 'node:events'
import { connect } from 'node:net'

/** A request without a body, as text; `headers` as raw pairs. */
export function requestText ({ method = 'GET', path, headers }: { method?: string, path: string, headers: string[] }): string {
  const lines = headers.flatMap((name, i) => i % 2 === 0 ? [`${name}: ${headers[i + 1] ?? ''}\r\n`] : [])
  return `${method} ${path} HTTP/1.1\r\nHost: gateway\r\n${lines.join('')}\r\n`
}

/** How many answers had which status. */
export type Statuses = Record<string, number>

export function statuses (answers: Array<{ status: number }>): Statuses {
  return answers.reduce<Statuses>((sum, { status }) => ({ ...sum, [status]: (sum[status] ?? 0) + 1 }), {})
}

/** Does a thing many times, some at once. */
export async function many<T> (times: number, work: (i: number) => Promise<T>, atOnce = 20): Promise<T[]> {
  const results: T[] = []
  let next = 0
  await Promise.all(Array.from({ length: Math.min(times, atOnce) }, async () => {
    while (next < times) {
      const i = next++
      results[i] = await work(i)
    }
  }))
  return results
}

/** So many requests over a few connections, several behind one another on each: a client library would take more time than the gateway. */
export async function flood (url: string, times: number, textOf: (i: number) => string, { connections = 16, inOneWrite = 8 } = {}): Promise<Statuses> {
  const { hostname, port } = new URL(url)
  const seen: Statuses = {}
  let next = 0
  await Promise.all(Array.from({ length: connections }, async () => {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true }).setEncoding('latin1')
    await once(socket, 'connect')
    const closed = once(socket, 'close')
    try {
      while (next < times) {
        const wanted = Math.min(inOneWrite, times - next)
        socket.write(Array.from({ length: wanted }, () => textOf(next++)).join(''), 'latin1')
        let [text, answers] = ['', 0]
        while (answers < wanted) {
          text += (await Promise.race([once(socket, 'data'), closed.then(() => { throw new Error(`the connection was closed behind ${text.slice(0, 400)}`) })]))[0] as string
          for (const line = /HTTP\/1\.1 (\d{3}) [^]*?\r\n\r\n/g; ; answers++) {
            const [, status = ''] = line.exec(text) ?? []
            if (status === '') break
            seen[status] = (seen[status] ?? 0) + 1
            text = text.slice(line.lastIndex)
            line.lastIndex = 0
          }
        }
      }
    } finally {
      socket.destroy()
    }
  }))
  return seen
}
