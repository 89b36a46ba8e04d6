// The pattern, not ajv's format "uuid": that one also accepts "urn:uuid:...".
export const uuid = { type: 'string', pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' }

/** The schema of a path's parameters, all required. */
export function params (properties: Record<string, object>): object {
  return { type: 'object', required: Object.keys(properties), properties }
}

export const formParams = params({ formId: uuid })
export const submissionParams = params({ submissionId: uuid })
export const formSubmissionParams = params({ formId: uuid, submissionId: uuid })

export const submissionBody = {
  type: 'object',
  required: ['answers'],
  additionalProperties: false,
  properties: {
    answers: { type: 'object' },
    status: { type: 'string', enum: ['draft', 'submitted'], default: 'submitted' }
  }
}

export interface FormParams { formId: string }
export interface SubmissionParams { submissionId: string }
export interface SubmissionBody { answers: Record<string, unknown>, status: 'draft' | 'submitted' }
