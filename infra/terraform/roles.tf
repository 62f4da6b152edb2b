locals {
  # What each role may do with KMS beside its policy of ../iam.
  roles = {
    agent  = ["kms:Decrypt", "kms:GenerateDataKey"]
    copier = ["kms:Decrypt"]
    pruner = ["kms:Decrypt", "kms:GenerateDataKey"]
    reader = ["kms:Decrypt"]
  }

  # Locks are for the days of `init --lock` and a third more; one day for clocks that differ.
  lock_days_max = ceil(var.lock_days * 4 / 3) + 1

  # The agent has nothing to do with the second bucket: whoever has its credentials neither. The copier's policy is about both.
  reaches = merge(
    { for role in ["agent", "pruner", "reader"] : role => { role = role, bucket = var.bucket } },
    { for role in ["copier"] : role => { role = role, bucket = var.bucket } if local.copies == 1 },
    { for role in ["pruner", "reader"] : "${role}-replica" => { role = role, bucket = local.replica_bucket } if local.replicas == 1 },
  )

  policies = {
    for name, reach in local.reaches : name => jsondecode(
      replace(replace(replace(replace(replace(file("${path.module}/../iam/${reach.role}.json"),
        "BUCKET", reach.bucket),
        "SECOND", local.replica_bucket),
        "\"41\"", "\"${local.lock_days_max}\""),
        "\"COMPLIANCE\"", "\"${var.lock_mode}\""),
      "PREFIX", var.prefix)
    )
  }

  trusts = {
    for role in keys(local.roles) : role => concat(
      [for accounts in [lookup(var.trusted_service_accounts, role, [])] : {
        Effect    = "Allow"
        Action    = "sts:AssumeRoleWithWebIdentity"
        Principal = { Federated = var.oidc.provider_arn }
        Condition = {
          StringEquals = {
            "${var.oidc.issuer}:aud" = "sts.amazonaws.com"
            "${var.oidc.issuer}:sub" = [for account in accounts : "system:serviceaccount:${account}"]
          }
        }
      } if length(accounts) > 0],
      [for services in [lookup(var.trusted_services, role, [])] : {
        Effect    = "Allow"
        Action    = "sts:AssumeRole"
        Principal = { Service = services }
      } if length(services) > 0],
      [for principals in [lookup(var.trusted_principals, role, [])] : {
        Effect    = "Allow"
        Action    = "sts:AssumeRole"
        Principal = { AWS = principals }
      } if length(principals) > 0],
    )
  }
}

# A role that nobody is trusted with is not made.
resource "aws_iam_role" "haulout" {
  for_each = { for role, trust in local.trusts : role => trust if length(trust) > 0 }

  name = "${replace(var.bucket, ".", "-")}-${each.key}"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = each.value
  })
}

resource "aws_iam_role_policy" "bucket" {
  for_each = { for name, reach in local.reaches : name => reach if length(local.trusts[reach.role]) > 0 }

  name = each.key
  role = aws_iam_role.haulout[each.value.role].id

  policy = jsonencode(merge(local.policies[each.key], {
    Statement = [
      for statement in local.policies[each.key].Statement : statement if statement.Sid != "Lock" || var.lock_days > 0
    ]
  }))
}

resource "aws_iam_role_policy" "key" {
  for_each = aws_iam_role.haulout

  name = "key"
  role = each.value.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Effect   = "Allow"
        Action   = local.roles[each.key]
        Resource = concat([aws_kms_key.backups.arn], each.key == "agent" ? [] : aws_kms_key.replica[*].arn)
      }],
      # What is put into the second bucket is encrypted with that one's key alone.
      [for action in ["kms:GenerateDataKey"] : {
        Effect   = "Allow"
        Action   = [action]
        Resource = aws_kms_key.replica[*].arn
      } if each.key == "copier"],
    )
  })
}

resource "aws_iam_instance_profile" "haulout" {
  for_each = { for role, services in var.trusted_services : role => role if contains(services, "ec2.amazonaws.com") }

  name = aws_iam_role.haulout[each.key].name
  role = aws_iam_role.haulout[each.key].name
  tags = var.tags
}
