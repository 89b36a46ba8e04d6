export { PolicySchema, type PolicyBody } from './policy.ts'
export { KeyRecord, VerificationOutcome, VerificationRequest } from './verification.ts'
export { Change, ChangesPage, ChangesQuery } from './changes.ts'
export { examples } from './examples.ts'
