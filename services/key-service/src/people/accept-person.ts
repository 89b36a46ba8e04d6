import { unacceptable } from '../errors.ts'
import { parseName } from '../text.ts'
import { parseEmail } from './email.ts'

/**
 * Who an account is made for; without a name it is called as the address begins.
 *
 * @throws {ProblemError} 422 with all faults at once.
 */
export function acceptPerson ({ email, name }: { email: string, name?: string | undefined }): { email: string, name: string } {
  const address = parseEmail(email)
  const parsed = parseName(name ?? [...email.trim().split('@', 1)[0] ?? ''].slice(0, 100).join(''))
  if ('email' in address && 'name' in parsed) return { ...address, ...parsed }
  throw unacceptable([
    ...'fault' in address ? [{ pointer: '/email', message: address.fault }] : [],
    ...'fault' in parsed && name !== undefined ? [{ pointer: '/name', message: parsed.fault }] : []
  ])
}
