/** Remembers the end of what a process printed, for messages that explain why it ended. */
export interface Tail { push: (chunk: Buffer | string) => void, read: () => string }

/** Keeps at most the last `limit` characters. */
export function createTail (limit = 64 * 1024): Tail {
  let text = ''
  return {
    push: (chunk) => { text = (text + chunk.toString()).slice(-limit) },
    read: () => text
  }
}

/** The last `count` lines of a text, indented, for the body of an error message. */
export function lastLines (text: string, count = 15): string {
  return text.trimEnd().split('\n').slice(-count).map(line => `  ${line}`).join('\n')
}
