#Requires -Version 5.1
# Pester 5: the decisions of rotate_logs.ps1 by the table that the Python twin is held to as well,
# then rotations of real files: nobody has them open, a writer has, a run was killed.

BeforeDiscovery {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $table = Get-Content -Raw -Path (Join-Path -Path $root -ChildPath 'tests/cases/rotation.json') | ConvertFrom-Json
    $limits = @{ max_bytes = $table.policy.max_bytes; max_days = $table.policy.max_days; keep = $table.policy.keep }
    $due = @($table.due | ForEach-Object { @{ name = $_.name; case = $_; limits = $limits } })
    $names = @($table.names | ForEach-Object { @{ name = $_.name; case = $_; log = $table.log } })
    $surplus = @($table.surplus | ForEach-Object { @{ name = $_.name; case = $_; log = $table.log } })
}

BeforeAll {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    . (Join-Path -Path $root -ChildPath 'scripts/rotate_logs.ps1')

    function Get-TestFolder {
        $folder = Join-Path -Path $TestDrive -ChildPath ([Guid]::NewGuid().ToString('N'))
        $null = [System.IO.Directory]::CreateDirectory($folder)
        return $folder
    }

    function Get-TestSetting {
        param([string]$Folder)
        return @{
            LogPath     = Join-Path -Path $Folder -ChildPath 'cloudflared.log'
            ServiceName = ''
            NoPause     = $false
            DryRun      = $false
            Policy      = @{ max_bytes = 10; max_days = 7; keep = 10 }
        }
    }

    function Get-Unpacked {
        param([string]$Path)
        $file = [System.IO.File]::OpenRead($Path)
        $pack = New-Object System.IO.Compression.GZipStream($file, [System.IO.Compression.CompressionMode]::Decompress)
        $reader = New-Object System.IO.StreamReader($pack)
        try {
            return $reader.ReadToEnd()
        }
        finally {
            $reader.Dispose()
            $file.Dispose()
        }
    }

    function Get-ArchivePath {
        param([string]$Folder)
        return @([System.IO.Directory]::GetFiles($Folder, '*.gz') | Sort-Object)
    }

    $yes = { param($What) $null = $What; $true }
}

Describe 'the decisions' {
    It 'about when are those of the table: <name>' -ForEach $due {
        Get-DueReason -SizeBytes $case.size_bytes -AgeDays $case.age_days -Policy $limits | Should -Be $case.due
    }

    It 'about names are those of the table: <name>' -ForEach $names {
        Get-ArchiveName -LogName $log -Day $case.day -Taken @($case.taken) | Should -Be $case.name
    }

    It 'about what goes are those of the table: <name>' -ForEach $surplus {
        $found = @(Get-SurplusArchive -LogName $log -Names @($case.names) -Keep $case.keep)
        ($found -join ',') | Should -Be (@($case.delete) -join ',')
    }
}

Describe 'a rotation' {
    It 'packs a log that nobody has open, and numbers the second of a day' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        foreach ($content in @('first line of the log', 'second line of the log')) {
            [System.IO.File]::WriteAllText($settings.LogPath, $content)
            Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
            [System.IO.File]::Exists($settings.LogPath) | Should -BeFalse
        }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $made.Count | Should -Be 2
        @($made | ForEach-Object { Get-Unpacked -Path $_ }) | Should -Contain 'first line of the log'
        @($made | ForEach-Object { Get-Unpacked -Path $_ }) | Should -Contain 'second line of the log'
        @($made | Where-Object { $_ -match '-2\.gz$' }).Count | Should -Be 1
    }

    It 'empties a log that a writer keeps open, and loses none of its lines' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        # As a program does that does not share deletion: the log cannot be renamed. Seeking to the
        # end before each line is what a program does that appends.
        $writer = [System.IO.File]::Open($settings.LogPath, [System.IO.FileMode]::OpenOrCreate, [System.IO.FileAccess]::Write, [System.IO.FileShare]::ReadWrite)
        try {
            foreach ($turn in 1..3) {
                foreach ($number in 1..100) {
                    $bytes = [System.Text.Encoding]::ASCII.GetBytes("line $turn $number`n")
                    $null = $writer.Seek(0, [System.IO.SeekOrigin]::End)
                    $writer.Write($bytes, 0, $bytes.Length)
                    $writer.Flush()
                }
                Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
                (New-Object System.IO.FileInfo($settings.LogPath)).Length | Should -Be 0
            }
        }
        finally {
            $writer.Dispose()
        }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $lines = @($made | ForEach-Object { (Get-Unpacked -Path $_).TrimEnd("`n") -split "`n" })
        $lines.Count | Should -Be 300
        @($lines | Sort-Object -Unique).Count | Should -Be 300
    }

    It 'finishes what a killed run left, once' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        [System.IO.File]::WriteAllText("$($settings.LogPath).rotating", 'set aside by a killed run')
        [System.IO.File]::WriteAllText($settings.LogPath, 'short')
        foreach ($turn in 1..2) { Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0 }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $made.Count | Should -Be 1
        Get-Unpacked -Path $made[0] | Should -Be 'set aside by a killed run'
    }

    It 'drops a copy whose log was not truncated yet, and keeps one whose log was' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        [System.IO.File]::WriteAllText($settings.LogPath, 'abc')
        [System.IO.File]::WriteAllText("$($settings.LogPath).copy", 'ab')
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent)).Count | Should -Be 0
        [System.IO.File]::WriteAllText("$($settings.LogPath).copy", 'xy and more')
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        Get-Unpacked -Path $made[0] | Should -Be 'xy and more'
    }

    It 'keeps the newest ten' {
        $folder = Get-TestFolder
        $settings = Get-TestSetting -Folder $folder
        foreach ($day in 10..21) { [System.IO.File]::WriteAllText((Join-Path -Path $folder -ChildPath "cloudflared.log.202001$day.gz"), '') }
        [System.IO.File]::WriteAllText($settings.LogPath, 'a line that is long enough')
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        $kept = @(Get-ArchivePath -Folder $folder)
        $kept.Count | Should -Be 10
        [System.IO.Path]::GetFileName($kept[0]) | Should -Be 'cloudflared.log.20200113.gz'
    }

    It 'ends as busy while another runs, and names a folder that is not there' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $lock = Open-RunLock -Path "$($settings.LogPath).lock"
        try {
            Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 6
        }
        finally {
            $lock.Dispose()
        }
        $settings.LogPath = Join-Path -Path $TestDrive -ChildPath 'nowhere\cloudflared.log'
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 2
    }

    It 'pauses a process and lets it go on' {
        Initialize-Pause
        $info = New-Object System.Diagnostics.ProcessStartInfo
        $info.FileName = Join-Path -Path $env:SystemRoot -ChildPath 'System32\ping.exe'
        $info.Arguments = '-n 120 127.0.0.1'
        $info.UseShellExecute = $false
        $info.CreateNoWindow = $true
        $process = [System.Diagnostics.Process]::Start($info)
        try {
            [PillSnap.Pause]::NtSuspendProcess($process.Handle) | Should -Be 0
            [PillSnap.Pause]::NtResumeProcess($process.Handle) | Should -Be 0
            $process.HasExited | Should -BeFalse
        }
        finally {
            $process.Kill()
        }
    }
}
