import { parsePolicies } from '@keygate/api-catalog'
import type { PolicyBody } from '@keygate/contracts'
import type { FieldError } from '@keygate/service-kit'

/** Reads a list of policies by the catalogue's own rules; the faults get the request's pointers. */
export function acceptPolicies (input: unknown): { policies: PolicyBody[], faults: FieldError[] } {
  const { policies, faults } = parsePolicies(input, 'policies')
  return { policies, faults: faults.map(toFieldError) }
}

/** `policies[0].limit: must be ...` -> `/policies/0/limit` and the rest. */
function toFieldError (fault: string): FieldError {
  const [, place = 'policies', message = fault] = /^(\S+?): (.*)$/s.exec(fault) ?? []
  return { pointer: `/${place.replace(/\[(\d+)\]/g, '/$1').replaceAll('.', '/')}`, message: message.replace(/\.$/, '') }
}
