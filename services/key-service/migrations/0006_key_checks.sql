CREATE TABLE "key_checks" (
	"kind" text NOT NULL,
	"id" text NOT NULL,
	"value" text NOT NULL,
	CONSTRAINT "key_checks_kind_id_pk" PRIMARY KEY("kind","id"),
	CONSTRAINT "key_checks_kind" CHECK ("key_checks"."kind" IN ('pepper', 'encryption-key'))
);
