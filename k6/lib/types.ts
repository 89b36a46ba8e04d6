/** An answer, the same for k6 and for Node. Header names are in lower case. */
export interface Answer { status: number, headers: Record<string, string>, body: string }

export type Checks = Record<string, (answer: Answer) => boolean>

/** What a scenario needs from the program that runs it: k6 (lib/k6-tools.js) or Node (test/runner.ts). */
export interface Tools {
  request: (method: string, url: string, headers?: Record<string, string>, body?: string) => Promise<Answer>
  base64: (text: string) => string
  /** Records each check under its name; true when all hold. */
  check: (answer: Answer, checks: Checks) => boolean
  /** Waits; only for what the system itself counts in seconds. */
  sleep: (seconds: number) => Promise<void> | void
}

/** Where the system under test is: the part of `.keygate/local.json` that scenarios read. */
export interface Settings {
  keyService: string
  gateways: string[]
  projectId: string
  operatorToken: string
  /** Path of a GET that a key of the project may call. */
  example: string
  /** There is no Redis: one gateway counts alone, tells no count, and takes up to a second to learn of a change. */
  alone?: true
}

export interface Policy { limit: number, windowSeconds: number }

export interface Key { id: string, secret: string }

/** How hard shared-limit calls. */
export interface Plan extends Policy {
  ratePerSecond: number
  durationSeconds: number
}

export type Outcome = 'admitted' | 'limited' | 'other'
