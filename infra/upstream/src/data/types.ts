export interface Form { id: string, name: string, description: string, activeVersion: number, createdAt: string, updatedAt: string }

export interface FormField { name: string, type: 'text' | 'number' | 'date', label: string }

export interface FormVersion { id: number, published: boolean, createdAt: string, fields: FormField[] }

export interface Submission {
  id: string
  formId: string
  version: number
  status: 'draft' | 'submitted'
  answers: Record<string, unknown>
  createdAt: string
  updatedAt: string
}

export interface FileInfo { id: string, formId: string, name: string, size: number, sha256: string, stored: boolean }

export interface StoredFile { info: FileInfo, content: Buffer }

/** Everything that one form owns. The maps keep their order: oldest first. */
export interface FormRecord {
  form: Form
  versions: FormVersion[]
  submissions: Map<string, Submission>
  files: Map<string, StoredFile>
}
