CREATE TABLE "allowed_hosts" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"position" integer NOT NULL,
	"host" text NOT NULL,
	CONSTRAINT "allowed_hosts_project_id_key_id_host_pk" PRIMARY KEY("project_id","key_id","host")
);
--> statement-breakpoint
CREATE TABLE "audit_events" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "audit_events_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"project_id" uuid,
	"key_id" text,
	"actor_type" text NOT NULL,
	"actor_id" text NOT NULL,
	"actor_name" text NOT NULL,
	"action" text NOT NULL,
	"request_id" text NOT NULL,
	"details" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "key_scopes" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"scope" text NOT NULL,
	CONSTRAINT "key_scopes_project_id_key_id_scope_pk" PRIMARY KEY("project_id","key_id","scope")
);
--> statement-breakpoint
CREATE TABLE "keys" (
	"project_id" uuid NOT NULL,
	"id" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"status" text NOT NULL,
	"allowed_for_all" boolean NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"version" bigint DEFAULT 1 NOT NULL,
	"effective_version" bigint DEFAULT 0 NOT NULL,
	"effective_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_by" text NOT NULL,
	CONSTRAINT "keys_project_id_id_pk" PRIMARY KEY("project_id","id"),
	CONSTRAINT "keys_status" CHECK ("keys"."status" IN ('active', 'disabled', 'revoked', 'deleted'))
);
--> statement-breakpoint
CREATE TABLE "outbox" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "outbox_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"version" bigint NOT NULL,
	"xid" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"delivered_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "outbox_pruned" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"xid" "xid8" NOT NULL,
	CONSTRAINT "outbox_pruned_only" CHECK ("outbox_pruned"."only")
);
--> statement-breakpoint
CREATE TABLE "policies" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"position" integer NOT NULL,
	"name" text NOT NULL,
	"limit" bigint NOT NULL,
	"window_seconds" integer NOT NULL,
	"algorithm" text NOT NULL,
	"partition" text NOT NULL,
	CONSTRAINT "policies_project_id_key_id_name_pk" PRIMARY KEY("project_id","key_id","name")
);
--> statement-breakpoint
CREATE TABLE "projects" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"name" text NOT NULL,
	"version" bigint DEFAULT 1 NOT NULL,
	"effective_version" bigint DEFAULT 0 NOT NULL,
	"effective_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_by" text NOT NULL,
	"deleted_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "secrets" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"id" text PRIMARY KEY NOT NULL,
	"digest" text NOT NULL,
	"hint" text NOT NULL,
	"state" text NOT NULL,
	"not_after" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "secrets_not_after" CHECK (("secrets"."state" = 'retiring') = ("secrets"."not_after" IS NOT NULL))
);
--> statement-breakpoint
CREATE TABLE "service_tokens" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"digest" text NOT NULL,
	"permissions" text[] NOT NULL,
	"project_id" uuid,
	"from_file" boolean DEFAULT false NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "allowed_hosts" ADD CONSTRAINT "allowed_hosts_key" FOREIGN KEY ("project_id","key_id") REFERENCES "public"."keys"("project_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "key_scopes" ADD CONSTRAINT "key_scopes_key" FOREIGN KEY ("project_id","key_id") REFERENCES "public"."keys"("project_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "keys" ADD CONSTRAINT "keys_project_id_projects_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."projects"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "policies" ADD CONSTRAINT "policies_project_id_projects_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."projects"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "secrets" ADD CONSTRAINT "secrets_key" FOREIGN KEY ("project_id","key_id") REFERENCES "public"."keys"("project_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "audit_events_by_project" ON "audit_events" USING btree ("project_id","id");--> statement-breakpoint
CREATE UNIQUE INDEX "keys_id" ON "keys" USING btree ("id");--> statement-breakpoint
CREATE INDEX "keys_by_age" ON "keys" USING btree ("project_id","created_at","id");--> statement-breakpoint
CREATE INDEX "keys_by_name" ON "keys" USING btree ("project_id","name","id");--> statement-breakpoint
CREATE INDEX "outbox_by_xid" ON "outbox" USING btree ("xid");--> statement-breakpoint
CREATE INDEX "outbox_undelivered" ON "outbox" USING btree ("id") WHERE delivered_at IS NULL;--> statement-breakpoint
CREATE INDEX "outbox_delivered" ON "outbox" USING btree ("delivered_at") WHERE delivered_at IS NOT NULL;--> statement-breakpoint
CREATE INDEX "projects_by_age" ON "projects" USING btree ("created_at","id") WHERE deleted_at IS NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "secrets_digest" ON "secrets" USING btree ("digest");--> statement-breakpoint
CREATE UNIQUE INDEX "secrets_state" ON "secrets" USING btree ("project_id","key_id","state");--> statement-breakpoint
CREATE UNIQUE INDEX "service_tokens_name" ON "service_tokens" USING btree ("name");--> statement-breakpoint
CREATE UNIQUE INDEX "service_tokens_digest" ON "service_tokens" USING btree ("digest");