import { SingleBar } from 'cli-progress'
import type { Output } from './command.ts'

export interface Progress { add: (count: number) => void, stop: () => void }

/** On a terminal a bar; into a file or a pipe a line at the start, every five seconds and at the end. */
export function startProgress (stream: Output, total: number, what: string): Progress {
  const bar = new SingleBar({
    stream,
    format: stream.isTTY === true ? `  [{bar}] {percentage}%  {value} of {total} ${what}  {eta_formatted} left` : `{value} of {total} ${what}`,
    noTTYOutput: true,
    notTTYSchedule: 5000,
    gracefulExit: false // it would swallow the first Ctrl-C
  })
  bar.start(total, 0)
  return {
    add: count => { bar.increment(count) },
    stop: () => { bar.stop() }
  }
}
