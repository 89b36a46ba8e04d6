import type { LightMyRequestResponse } from 'fastify'
import postgres from 'postgres'
import type { Test } from 'tap'
import { peopleAdd } from '../src/cli/people-add.ts'
import type { Command, Input } from '../src/cli/command.ts'
import type { Config } from '../src/config.ts'
import { jsonOf, type Answer, type Sql, type TestApp } from './helper.ts'

export const password = 'correct horse battery'

/** What a browser on this machine sends with a request of our own page. */
export const ownPage = { host: 'localhost', 'sec-fetch-site': 'same-origin' }

/** Any request, with all headers as they are given. */
export async function send ({ app }: TestApp, method: string, path: string, { body, headers = ownPage }: { body?: unknown, headers?: Record<string, string> } = {}): Promise<Answer & { cookies: LightMyRequestResponse['cookies'] }> {
  const response = await app.inject({ method: method as 'GET', url: `/v1${path}`, headers, ...body === undefined ? {} : { payload: body as object } })
  const text = response.body
  return { status: response.statusCode, headers: response.headers, cookies: response.cookies, text, body: jsonOf(response) }
}

/** `name=value` of the session's cookie, as a request sends it. */
export function cookieOf ({ cookies }: { cookies: LightMyRequestResponse['cookies'] }): string {
  const [cookie] = cookies
  if (cookie === undefined) throw new Error('the answer sets no cookie')
  return `${cookie.name}=${cookie.value}`
}

export interface Person {
  id: string
  email: string
  cookie: string
  call: (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>
}

/** Somebody who is signed in with this cookie. */
export async function personWith (app: TestApp, cookie: string): Promise<Person> {
  const call: Person['call'] = async (method, path, body, headers = {}) => await send(app, method, path, { body, headers: { ...ownPage, cookie, ...headers } })
  const { status, body } = await call('GET', '/me')
  if (status !== 200) throw new Error(`nobody is signed in: ${status}`)
  return { id: body.id, email: body.email, cookie, call }
}

/** Follows a one-time link. */
export async function follow (app: TestApp, text: string, chosen = password): Promise<Person> {
  const answer = await send(app, 'POST', '/set-password', { body: { token: tokenIn(text), password: chosen } })
  if (answer.status !== 200) throw new Error(`the link was refused: ${answer.text}`)
  return await personWith(app, cookieOf(answer))
}

export function tokenIn (text: string): string {
  const token = /\/set-password#token=([\w-]{43})\b/.exec(text)?.[1]
  if (token === undefined) throw new Error(`there is no link in ${JSON.stringify(text)}`)
  return token
}

/** A command of the host's command line, in this process. */
export async function onHost ({ parts }: TestApp, config: Config, command: Command, options: Input['options']): Promise<string> {
  let printed = ''
  const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' } as const, requestId: 'command' }
  await command.run({ config, database: parts.database, context, print: line => { printed += `${line}\n` }, err: process.stderr }, { args: {}, options })
  return printed
}

/** An account made on the host, with a password and a session. */
export async function newPerson (app: TestApp, config: Config, options: { email: string } & Input['options']): Promise<Person> {
  return await follow(app, await onHost(app, config, peopleAdd, options))
}

/** The tables themselves, for what no route shows, and for moving the times of rows instead of waiting. */
export function tablesOf (t: Test, databaseUrl: string): Sql {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  return sql
}
