import type { FastifyInstance } from 'fastify'
import type { Answer, Call } from '../helper.ts'

/** What is made once for all. */
export interface World {
  app: FastifyInstance
  call: Call
  /** For whatever needs some project. */
  projectId: string
  /** Another one, for what is about the project itself. */
  newProject: () => Promise<string>
}

export async function createWorld (app: FastifyInstance, call: Call): Promise<World> {
  const newProject = async () => idOf(await call('POST', '/projects', { name: 'Fuzzed' }))
  return { app, call, projectId: await newProject(), newProject }
}

/** @throws with the answer when nothing was made. */
export function idOf ({ status, body, text }: Answer): string {
  if (status !== 201) throw new Error(`what the fuzz is about could not be made: ${status} ${text.slice(0, 500)}`)
  return body.id ?? body.userId
}
