import { createHash } from 'node:crypto'
import type { FormField, FormRecord, FormVersion, StoredFile, Submission } from './types.ts'

const names = ['Site inspection', 'Grant application', 'Equipment request', 'Incident report', 'Volunteer sign-up', 'Water sample', 'Parking permit', 'Course feedback']
const people = ['Amara Diallo', 'Noor Haddad', 'Jonas Weber', 'Mei Tanaka', 'Sofia Rossi', 'Liam Murphy', 'Ines Costa', 'Pavel Novak']
const places = ['Kamloops', 'Nelson', 'Terrace', 'Hope', 'Fernie', 'Tofino', 'Smithers', 'Quesnel']

const baseDay = Date.UTC(2026, 0, 5, 9)
const dayMs = 86_400_000

const fields: FormField[] = [
  { name: 'fullName', type: 'text', label: 'Full name' },
  { name: 'town', type: 'text', label: 'Town' },
  { name: 'amount', type: 'number', label: 'Amount' }
]

/** Makes up a form from nothing but its id: the same id gives the same form in every process and after every restart. */
export function seedForm (formId: string): FormRecord {
  const dice = digest(formId, 'form')
  const createdAt = day(dice.readUInt8(0))
  const name = pick(names, dice.readUInt8(1))
  const versions: FormVersion[] = [
    { id: 1, published: false, createdAt, fields: fields.slice(0, 2) },
    { id: 2, published: true, createdAt: day(dice.readUInt8(0) + 1), fields }
  ]
  const submissions = Array.from({ length: 3 + dice.readUInt8(2) % 3 }, (_, index) => seedSubmission(formId, index))
  const files = [seedFile(formId, name)]
  return {
    form: { id: formId, name, description: `${name}, made up by the demo API`, activeVersion: 2, createdAt, updatedAt: day(dice.readUInt8(0) + 1) },
    versions,
    submissions: new Map(submissions.map(submission => [submission.id, submission])),
    files: new Map(files.map(file => [file.info.id, file]))
  }
}

function seedSubmission (formId: string, index: number): Submission {
  const dice = digest(formId, `submission ${index}`)
  const createdAt = day(300 + index)
  return {
    id: uuid(dice),
    formId,
    version: 2,
    status: 'submitted',
    answers: { fullName: pick(people, dice.readUInt8(16)), town: pick(places, dice.readUInt8(17)), amount: dice.readUInt16BE(18) },
    createdAt,
    updatedAt: createdAt
  }
}

function seedFile (formId: string, name: string): StoredFile {
  const content = Buffer.from(`A page attached to the form ${name}.\n`)
  return {
    info: {
      id: uuid(digest(formId, 'file')),
      formId,
      name: 'attachment.txt',
      size: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
      stored: true
    },
    content
  }
}

function digest (formId: string, label: string): Buffer {
  return createHash('sha256').update(`${formId}/${label}`).digest()
}

/** A version 8 UUID (RFC 9562 section 5.8): the version for ids whose bits the application chose itself. */
function uuid (bytes: Buffer): string {
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

function day (offset: number): string {
  return new Date(baseDay + offset * dayMs).toISOString()
}

function pick (list: string[], byte: number): string {
  return list[byte % list.length] as string
}
