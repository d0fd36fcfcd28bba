#Requires -Version 5.1
# The scripts' decisions, a JSON line in and one out: a run of checks under one policy, or what
# becomes of a log and of the files beside it.
$scripts = Join-Path -Path (Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent) -ChildPath 'scripts'
. (Join-Path -Path $scripts -ChildPath 'rotate_logs.ps1')
. (Join-Path -Path $scripts -ChildPath 'health_watch.ps1')

function Get-Play {
    param([object]$Run)
    $policy = @{}
    foreach ($one in $Run.policy.PSObject.Properties) { $policy[$one.Name] = $one.Value }
    $state = Get-EmptyState
    $told = @()
    foreach ($step in $Run.steps) {
        $checks = @{ internal = $step[1]; external = $step[2]; degraded = $step[3] }
        $decision = Get-HealthDecision -State $state -Checks $checks -Policy $policy -NowS ([long]$step[0])
        $actions = @($decision.actions)
        if ($actions -contains 'restart') {
            $again = @{ internal = $step[4]; external = $step[5]; degraded = $step[6] }
            $decision = Get-RecheckDecision -State $decision.state -Checks $again -Policy $policy
            $actions += @($decision.actions)
        }
        $state = $decision.state
        $incident = $null
        if ($null -ne $state.incident) { $incident = @($state.incident.since_s, $state.incident.layer, $state.incident.alerted) }
        $seen = $state.degradation
        $told += , @(
            $actions,
            $decision.reason,
            $decision.exit_code,
            @($state.internal_failures, $state.external_failures, $state.good_runs),
            @($state.failing_since_s, @($state.restarts_at_s)),
            $incident,
            @($seen.runs, $seen.good_runs, $seen.since_s, $seen.alerted)
        )
    }
    return , $told
}

function Get-Fate {
    param([object]$Log)
    $policy = @{ max_bytes = 100; max_days = 7 }
    $names = [string[]]@($Log.names)
    return , @(
        (Get-DueReason -SizeBytes $Log.size_bytes -AgeDays $Log.age_days -Policy $policy),
        (Get-ArchiveName -LogName $Log.log -Day $Log.day -Taken $names),
        @(Get-SurplusArchive -LogName $Log.log -Names $names -Keep $Log.keep)
    )
}

while ($null -ne ($line = [Console]::In.ReadLine())) {
    $asked = $line | ConvertFrom-Json
    if ($null -ne $asked.PSObject.Properties['steps']) { $answer = Get-Play -Run $asked }
    else { $answer = Get-Fate -Log $asked }
    [Console]::Out.WriteLine((ConvertTo-Json -InputObject $answer -Depth 6 -Compress))
}
