locals {
  replicas       = var.replica_bucket == null ? 0 : 1
  replications   = var.replica_by == "replication" ? local.replicas : 0
  copies         = local.replicas - local.replications
  replica_bucket = coalesce(var.replica_bucket, "none")

  # What a restore needs, and no more: leases and prune plans are about work at the first repository, and would be taken
  # at the second for work there.
  replicated = ["haulout.json", "keys/", "packs/", "backups/", "damage/"]

  tls_only = {
    for bucket in compact([var.bucket, var.replica_bucket]) : bucket => {
      Version = "2012-10-17"
      Statement = [{
        Sid       = "OnlyByTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = ["arn:aws:s3:::${bucket}", "arn:aws:s3:::${bucket}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }]
    }
  }
}

resource "aws_s3_bucket" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket              = local.replica_bucket
  object_lock_enabled = true
  tags                = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_ownership_controls" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[0].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket                  = aws_s3_bucket.replica[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[0].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.replica[0].arn
    }
  }
}

resource "aws_s3_bucket_policy" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[0].id
  policy = jsonencode(local.tls_only[local.replica_bucket])

  depends_on = [aws_s3_bucket_public_access_block.replica]
}

resource "aws_s3_bucket_lifecycle_configuration" "replica" {
  count    = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[0].id

  dynamic "rule" {
    for_each = local.lifecycle

    content {
      id     = rule.value.ID
      status = rule.value.Status

      filter {
        prefix = rule.value.Filter.Prefix
      }

      noncurrent_version_expiration {
        noncurrent_days = rule.value.NoncurrentVersionExpiration.NoncurrentDays
      }

      expiration {
        expired_object_delete_marker = rule.value.Expiration.ExpiredObjectDeleteMarker
      }

      abort_incomplete_multipart_upload {
        days_after_initiation = rule.value.AbortIncompleteMultipartUpload.DaysAfterInitiation
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.replica]
}

resource "aws_s3_bucket_replication_configuration" "backups" {
  count = local.replications

  bucket = aws_s3_bucket.backups.id
  role   = aws_iam_role.replication[0].arn

  dynamic "rule" {
    for_each = local.replicated

    content {
      id       = "haulout-${replace(rule.value, "/", "")}"
      priority = rule.key
      status   = "Enabled"

      filter {
        prefix = "${var.prefix}/${rule.value}"
      }

      # Whoever empties the first bucket does not empty the second. So the second has a `prune` of its own.
      delete_marker_replication {
        status = "Disabled"
      }

      source_selection_criteria {
        sse_kms_encrypted_objects {
          status = "Enabled"
        }
      }

      destination {
        bucket        = aws_s3_bucket.replica[0].arn
        storage_class = "STANDARD"

        encryption_configuration {
          replica_kms_key_id = aws_kms_key.replica[0].arn
        }
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.backups, aws_s3_bucket_versioning.replica]
}

resource "aws_iam_role" "replication" {
  count = local.replications

  name = "${replace(var.bucket, ".", "-")}-replication"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "replication" {
  count = local.replications

  name = "replication"
  role = aws_iam_role.replication[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = "arn:aws:s3:::${var.bucket}"
      },
      {
        Effect = "Allow"
        Action = [
          "s3:GetObjectLegalHold",
          "s3:GetObjectRetention",
          "s3:GetObjectVersionAcl",
          "s3:GetObjectVersionForReplication",
          "s3:GetObjectVersionTagging",
        ]
        Resource = "arn:aws:s3:::${var.bucket}/${var.prefix}/*"
      },
      {
        # Without s3:ReplicateDelete.
        Effect   = "Allow"
        Action   = ["s3:ReplicateObject", "s3:ReplicateTags"]
        Resource = "arn:aws:s3:::${local.replica_bucket}/${var.prefix}/*"
      },
    ]
  })
}

resource "aws_iam_role_policy" "replication_keys" {
  count = local.replications

  name = "keys"
  role = aws_iam_role.replication[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = aws_kms_key.backups.arn
      },
      {
        Effect   = "Allow"
        Action   = "kms:Encrypt"
        Resource = aws_kms_key.replica[0].arn
      },
    ]
  })
}
