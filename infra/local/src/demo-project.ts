import { createHash } from 'node:crypto'
import type { KeyServiceClient } from './key-service-client.ts'
import type { LocalRun } from './local-file.ts'

export interface DemoKey {
  projectId: string
  keyId: string
  secret: string
  /** `kept`: the earlier run's key still answers; `replaced`: it does not, a new one was made; `made`: there was none. */
  how: 'kept' | 'replaced' | 'made'
}

/** The demo project and key of this installation: those of the earlier run while they still answer, else new ones. */
export async function demoKey (keyService: KeyServiceClient, earlier: LocalRun | undefined): Promise<DemoKey> {
  if (earlier !== undefined && await stillAnswers(keyService, earlier)) {
    return { projectId: earlier.projectId, keyId: earlier.keyId, secret: earlier.secret, how: 'kept' }
  }
  const projectId = await demoProject(keyService, earlier?.projectId)
  const key = await keyService.send<{ id: string, secret: string }>('POST', `/v1/projects/${projectId}/keys`, { name: 'Demo', allowedForAll: true })
  return { projectId, keyId: key.id, secret: key.secret, how: earlier === undefined ? 'made' : 'replaced' }
}

// Asked as a gateway would ask, not by a call through one: that would count against the limit before the user's first call.
async function stillAnswers (keyService: KeyServiceClient, { projectId, keyId, secret }: LocalRun): Promise<boolean> {
  const digest = createHash('sha256').update(secret).digest('base64url')
  const { status, body } = await keyService.call('POST', '/v1/verifications', { digest, projectId })
  const { outcome, record } = (body ?? {}) as { outcome?: string, record?: { keyId: string, status: string } }
  return status === 200 && outcome === 'found' && record?.keyId === keyId && record.status === 'active'
}

async function demoProject (keyService: KeyServiceClient, earlier: string | undefined): Promise<string> {
  if (earlier !== undefined) {
    const { status } = await keyService.call('GET', `/v1/projects/${encodeURIComponent(earlier)}`)
    if (status === 200) return earlier
  }
  return (await keyService.send<{ id: string }>('POST', '/v1/projects', { name: 'Demo' })).id
}
