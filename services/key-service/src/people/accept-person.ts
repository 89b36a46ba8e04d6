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
    // Without a fault of the address: it begins with marks alone, which nothing shows.
    ...'fault' in parsed && (name !== undefined || 'email' in address) ? [{ pointer: '/name', message: name === undefined ? 'is required: the address begins with nothing that could be shown instead' : parsed.fault }] : []
  ])
}
